# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scripts.evaluation import FilterBank


def by_hand(volume):
    """The documented statistics in float64 numpy, scale after scale."""
    statistics = []
    for factor in (1, 2, 4):
        sides = [side // factor for side in volume.shape]
        level = volume.astype(float).reshape(sides[0], factor, sides[1], factor, sides[2], factor).mean(axis=(1, 3, 5))
        first = [np.diff(level, axis=axis) for axis in range(3)]
        second = [np.diff(first[a], axis=b) for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
        for response in (level, *first, *second):
            for half in np.array_split(response, 2, axis=0):
                for quarter in np.array_split(half, 2, axis=1):
                    for octant in np.array_split(quarter, 2, axis=2):
                        statistics += [np.abs(octant).mean(), np.sqrt((octant**2).mean())]
    return np.log(1 + np.array(statistics) / 0.01)


def test_the_filter_bank_is_what_its_description_says(rng):
    volume = rng.random((16, 20, 24), dtype=np.float32)
    found = FilterBank()(volume)
    assert (found.shape, found.dtype) == ((480,), np.float64)
    np.testing.assert_allclose(found, by_hand(volume), rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 5, 5), (17, 6, 33)])
def test_volumes_of_any_size_have_as_many_finite_features(shape, rng):
    found = FilterBank()(rng.random(shape, dtype=np.float32))
    assert (found.shape, np.isfinite(found).all()) == ((480,), True)


def test_an_empty_volume_has_no_features():
    assert not FilterBank()(np.zeros((12, 12, 12), dtype=np.float32)).any()


def test_more_blur_lies_further_from_the_truth(rng):
    truth = gaussian_filter(rng.random((32, 32, 32)), 1) * 3
    features = FilterBank()
    away = [np.linalg.norm(features(gaussian_filter(truth, sigma)) - features(truth)) for sigma in (0, 0.5, 1, 2)]
    assert away[0] == 0
    assert away == sorted(away)
    assert away[1] > 0.1
