# SPDX-License-Identifier: Apache-2.0
from itertools import chain

import numpy as np
import pytest

from scripts.data.dicom.write_pixels import to_integers


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
