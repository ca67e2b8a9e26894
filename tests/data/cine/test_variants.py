# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts.data.cine import Cine
from scripts.data.cine.variants import varied
from scripts.errors import BadInput


@pytest.fixture
def cine(rng):
    """Two slices of five frames: a bright disc off the middle that grows by a tenth, on faint noise, one slice darker."""
    x, y = np.mgrid[:96, :80]
    discs = [1.0 * (np.hypot(x - 50, y - 36) < 18 * (1 + frame / 40)) for frame in range(5)]
    voxels = np.stack([np.stack(discs, axis=-1) * level for level in (200, 100)], axis=2)
    return Cine((voxels + rng.uniform(0, 4, voxels.shape)).astype(np.float32), np.eye(4), np.arange(5.0), True, Path("x"))


def test_variants_hold_the_same_motion_at_another_size(cine, rng):
    """A disc is one whichever way it lies; its share of the picture is that of the part that is bright."""
    other = varied(cine, rng)
    assert other.voxels.shape[2:] == cine.voxels.shape[2:]
    assert all(side % 4 == 0 for side in other.voxels.shape[:2])
    areas = [(slices > slices.max() / 2).sum(axis=(0, 1)) for slices in np.moveaxis(other.voxels, 2, 0)]
    for area in areas:
        assert 1.1 < area[-1] / area[0] < 1.3  # 1.21 but for pixels
    assert areas[0][0] == pytest.approx(areas[1][0], rel=0.1)


def test_each_slice_lies_in_a_way_of_its_own_and_none_is_negative(cine, rng):
    other = varied(cine, rng).voxels
    assert other.min() >= 0 and np.isfinite(other).all()
    first, second = (other[:, :, index, 0] / other[:, :, index].max() for index in (0, 1))
    assert np.abs(first - second).max() > 0.05


@pytest.mark.parametrize("level", [-100, -300])
def test_what_is_below_zero_is_varied_like_the_rest(level, cine, rng):
    """Signed images, as of a scanner that stores so: the same variants, lower by as much."""
    seed = int(rng.integers(1000))
    other, lower = (
        varied(replace(cine, voxels=cine.voxels + np.float32(by)), np.random.default_rng(seed)).voxels for by in (0, level)
    )
    np.testing.assert_allclose(lower - level, other, atol=1e-2)  # of 200, in float32


def test_a_slice_of_next_to_nothing_is_varied_beside_others(cine, rng):
    cine.voxels[:, :, 1] = 0
    other = varied(cine, rng).voxels
    assert np.isfinite(other).all() and not other[:, :, 1].any() and other[:, :, 0].max() > 100


@pytest.mark.parametrize(("side", "value", "fact"), [(96, 3.0, "hold a single value"), (6, None, "6x6 pixels, too small")])
def test_what_cannot_be_varied_is_refused(side, value, fact, cine, rng):
    voxels = rng.uniform(0, 9, (side, side, 1, 5)) if value is None else np.full((side, side, 1, 5), value)
    with pytest.raises(BadInput, match=fact):
        varied(replace(cine, voxels=voxels.astype(np.float32)), rng)
