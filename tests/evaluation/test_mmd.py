# SPDX-License-Identifier: Apache-2.0
import itertools
import tracemalloc

import numpy as np
import pytest

from scripts.evaluation.mmd import VoxelMMD

BOX = (12, 10, 11)


def measured(errors, truth=0.0, shape=BOX):
    """The result for cases with these errors (n, H, W, D)."""
    mmd = VoxelMMD(shape)
    for error in errors:
        mmd.add(truth + error, truth + np.zeros_like(error))
    return mmd.result()


def test_the_value_is_the_squared_distance_of_the_means(rng):
    truth, pred = rng.random((2, 7, *BOX), dtype=np.float32)
    mmd = VoxelMMD(BOX)
    for pair in zip(pred, truth, strict=True):
        mmd.add(*pair)
    by_hand = ((truth.mean(axis=0, dtype=np.float64) - pred.mean(axis=0, dtype=np.float64)) ** 2).sum()
    assert mmd.result()["n"] == 7
    assert mmd.result()["value"] == pytest.approx(by_hand)


def test_the_floor_is_the_variance_of_a_mean_and_the_bias_what_pairs_of_cases_share(rng):
    errors = rng.normal(0.02, 0.1, (5, *BOX))
    result = measured(errors)
    assert result["floor"] == pytest.approx(errors.var(axis=0, ddof=1).sum() / 5)
    assert result["bias"] == pytest.approx(np.mean([(a * b).sum() for a, b in itertools.combinations(errors, 2)]))
    assert result["value"] == pytest.approx(result["floor"] + result["bias"])


@pytest.mark.parametrize("size", [0.0, 0.05], ids=["unbiased", "biased"])
@pytest.mark.parametrize("n", [2, 4, 40])
def test_gaussian_errors_give_their_closed_form(n, size, rng):
    voxels, sigma = np.prod(BOX), 0.1
    shared = rng.normal(0, size, BOX)
    result = measured(rng.normal(shared, sigma, (n, *BOX)), truth=0.5)
    floor, bias = voxels * sigma**2 / n, (shared**2).sum()
    floor_deviation = floor * (2 / (voxels * (n - 1))) ** 0.5
    bias_deviation = (4 * sigma**2 * bias / n + 2 * voxels * sigma**4 / (n * (n - 1))) ** 0.5
    assert result["floor"] == pytest.approx(floor, abs=6 * floor_deviation)
    assert result["bias"] == pytest.approx(bias, abs=6 * bias_deviation)


def test_voxels_may_err_together_as_long_as_cases_do_not(rng):
    """Whole volumes too bright or too dark by chance, in many repeats: no bias on average, though the value is not 0."""
    repeats, n, sigma, shape = 1000, 3, 0.1, (2, 3, 4)
    errors = rng.normal(0, sigma, (repeats, n, 1, 1, 1)) * np.ones(shape)
    results = [measured(cases, shape=shape) for cases in errors]
    floor = np.prod(shape) * sigma**2 / n
    means = {key: np.mean([result[key] for result in results]) for key in ("bias", "floor")}
    assert means["bias"] == pytest.approx(0, abs=6 * floor * n * (2 / (n * (n - 1)) / repeats) ** 0.5)  # a third of the floor
    assert means["floor"] == pytest.approx(floor, rel=6 * (2 / (n - 1) / repeats) ** 0.5)


def test_without_bias_the_value_falls_as_one_over_n(rng):
    errors = rng.normal(0, 0.1, (64, *BOX))
    few, many = measured(errors[:4]), measured(errors)
    assert few["value"] / many["value"] == pytest.approx(16, rel=6 * 2 / np.prod(BOX) ** 0.5)


def test_volumes_of_any_size_lie_centred_in_the_box():
    small, large = np.zeros((4, 4, 4)), np.zeros((16, 14, 15))
    small[1:3, 1:3, 1:3] = 1
    large[7:9, 6:8, 6:8] = -1  # the same place: (5:7, 4:6, 4:6) of the box, for two voxels stick out at every side
    assert measured([small])["value"] == 8
    mmd = VoxelMMD(BOX)
    mmd.add(small, np.zeros_like(small))
    mmd.add(large, np.zeros_like(large))
    assert mmd.result()["value"] == pytest.approx(0)


def test_every_voxel_counts_of_volumes_larger_than_the_box():
    large = np.ones((16, 13, 11))
    assert measured([large, large]) == {"n": 2, "value": large.size, "floor": 0, "bias": large.size}


def test_volumes_share_one_centre_in_whatever_order_they_come(rng):
    """Of sides that are all odd or all even the middle is one voxel, or the same two."""
    shapes = np.array([(11, 7, 9), (13, 11, 11), (17, 9, 21), (9, 15, 13)])
    errors, room = [rng.normal(size=shape) for shape in shapes], shapes.max(axis=0)
    summed = sum(np.pad(error, [(int(more) // 2,) * 2 for more in room - error.shape]) for error in errors)
    for ordered in itertools.permutations(errors):
        assert measured(ordered)["value"] == pytest.approx((summed**2).sum() / 16)


def test_one_case_has_no_parts_and_none_no_value(rng):
    assert measured([]) == {"n": 0, "value": None, "floor": None, "bias": None}
    error = rng.random(BOX)
    assert measured([error]) == {"n": 1, "value": pytest.approx((error**2).sum()), "floor": None, "bias": None}


def test_memory_does_not_grow_with_the_cases_and_stays_below_200_megabytes():
    volume = np.zeros((64, 64, 64), dtype=np.float32)
    tracemalloc.start()
    mmd, held = VoxelMMD(), []
    for _ in range(5):
        mmd.add(volume, volume)
        held.append(tracemalloc.get_traced_memory()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held[-1] - held[0] < 1e5
    assert peak < 200e6


def test_a_prediction_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 5, 6\) and truth \(4, 5, 7\) differ in size"):
        VoxelMMD(BOX).add(np.zeros((4, 5, 6)), np.zeros((4, 5, 7)))
