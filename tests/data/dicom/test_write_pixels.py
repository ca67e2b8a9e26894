# SPDX-License-Identifier: Apache-2.0
from itertools import chain

import numpy as np
import pytest

from scripts.data.dicom.write_pixels import as_slices, to_integers


@pytest.mark.parametrize("back", [1, -1])
def test_slices_that_lean_a_little_lie_where_they_were(back, rng):
    """As stacks of half a degree, and those whose cosines have two decimals, which highdicom takes for no grid."""
    affine = np.diag([-0.9, -1.1, 5.0 * back, 1.0])
    affine[:3, 3], affine[:2, 2] = rng.uniform(-50, 50, 3), rng.uniform(0.01, 0.03, 2)
    stack = as_slices(rng.random((6, 7, 9), dtype=np.float32), affine)
    places = np.array([place[0].ImagePositionPatient for place in stack.get_plane_positions()], dtype=float)
    first = [(affine @ [0, 0, k, 1])[:3] * [-1, -1, 1] for k in range(9)]
    np.testing.assert_allclose(places, first[:: 1 if back > 0 else -1], atol=1e-9)
    assert stack.spacing_between_slices == pytest.approx(5)


def test_slices_that_lean_more_are_no_stack(rng):
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    affine[0, 2] = 0.3
    with pytest.raises(ValueError, match="orthogonal"):
        as_slices(rng.random((6, 7, 9), dtype=np.float32), affine)


def test_integers_span_16_bits_and_come_back_within_half_a_step(rng):
    for scale in (1e-6, 1.0, 1e6):
        values = (scale * rng.normal(size=(3, 4, 5))).astype(np.float32)
        integers, slope, intercept = to_integers(values)
        assert (integers.min(), integers.max()) == (0, 65535)
        np.testing.assert_allclose(integers * slope + intercept, values, rtol=0, atol=0.501 * np.ptp(values) / 65535)


def test_a_constant_result_is_stored_and_nan_is_not():
    integers, slope, intercept = to_integers(np.full((2, 2, 2), 7.5, dtype=np.float32))
    assert set(chain.from_iterable(integers.reshape(2, -1) * slope + intercept)) == {7.5}
    with pytest.raises(ValueError, match="NaN"):
        to_integers(np.full((2, 2, 2), np.nan, dtype=np.float32))
