# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from monai.metrics.regression import SSIMMetric, compute_ssim_and_cs
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import roc_auc_score

from scripts.evaluation import ScaleToTruthd
from scripts.evaluation.metrics import (
    METRICS,
    heading,
    mae,
    measurement_error,
    psnr,
    psnr_fitted,
    slice_consistency,
    ssim,
    ssim_gaussian,
    tumour_metrics,
)  # fmt: skip
from scripts.measurement import BlockAverage


@pytest.fixture
def pair(rng):
    """Truth and prediction in [0, 1], of unlike sides, float32 as from a file."""
    truth = rng.random((11, 12, 13), dtype=np.float32)
    return np.clip(truth + rng.normal(0, 0.1, truth.shape), -0.1, 1.1).astype(np.float32), truth


def integral(volume):
    """Sums over windows of 7x7x7 by an integral image, mirrored at the edges; float64."""
    table = np.pad(volume.astype(np.float64), 3, mode="symmetric")
    for axis in range(3):
        table = np.cumsum(table, axis=axis)
        table = np.insert(table, 0, 0.0, axis=axis)
        upper, lower = (np.take(table, range(first, first + volume.shape[axis]), axis=axis) for first in (7, 0))
        table = upper - lower
    return table


def defined_ssim(x, y):
    """Eq. 13 of Wang et al. 2004 with sample (co)variances."""
    n = 7**3
    mean_x, mean_y = integral(x) / n, integral(y) / n
    x, y = x.astype(np.float64), y.astype(np.float64)
    var_x, var_y, cov = ((integral(a * b) - n * p * q) / (n - 1) for a, b, p, q in (
        (x, x, mean_x, mean_x), (y, y, mean_y, mean_y), (x, y, mean_x, mean_y),
    ))  # fmt: skip
    c_1, c_2 = 0.01**2, 0.03**2
    return (2 * mean_x * mean_y + c_1) * (2 * cov + c_2) / ((mean_x**2 + mean_y**2 + c_1) * (var_x + var_y + c_2))


def test_window_sums_are_sums_over_windows(pair):
    volume = np.pad(pair[1].astype(np.float64), 3, mode="symmetric")
    sums = [[[volume[i : i + 7, j : j + 7, k : k + 7].sum() for k in range(13)] for j in range(12)] for i in range(11)]
    np.testing.assert_allclose(integral(pair[1]), sums, rtol=1e-10)


@pytest.mark.parametrize(("error", "decibel"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)])
def test_psnr_of_a_constant_error_has_a_closed_form(error, decibel):
    truth = np.zeros((4, 5, 6))
    assert psnr(truth + error, truth) == pytest.approx(decibel)


def test_psnr_of_equal_volumes_is_infinite(pair):
    assert psnr(pair[1], pair[1]) == float("inf")


def test_psnr_equals_that_of_scikit_image(pair):
    pred, truth = pair
    assert psnr(pred, truth) == pytest.approx(peak_signal_noise_ratio(truth, pred, data_range=1.0), abs=1e-4)


def test_ssim_equals_its_definition(pair):
    pred, truth = pair
    inner = defined_ssim(truth, pred)[3:-3, 3:-3, 3:-3]  # whole windows alone
    assert ssim(pred, truth) == pytest.approx(inner.mean(), abs=1e-5)  # computed in float32
    assert ssim(truth, truth) == pytest.approx(1)


def test_metrics_over_a_mask_count_its_voxels_alone(pair, rng):
    pred, truth = pair
    mask = rng.random(truth.shape) < 0.3
    assert ssim(pred, truth, mask) == pytest.approx(defined_ssim(truth, pred)[mask].mean(), abs=1e-5)
    by_hand = -10 * np.log10(np.mean((pred[mask].astype(np.float64) - truth[mask]) ** 2))
    assert psnr(pred, truth, mask) == pytest.approx(by_hand, abs=1e-4)
    changed = np.where(mask, pred, rng.random(truth.shape, dtype=np.float32))
    assert psnr(changed, truth, mask) == psnr(pred, truth, mask)


def test_gaussian_ssim_equals_that_of_monai(pair, rng):
    pred, truth = (torch.from_numpy(volume)[None, None] for volume in pair)
    assert ssim_gaussian(*pair) == pytest.approx(float(SSIMMetric(spatial_dims=3)(pred, truth)), abs=1e-5)  # float32
    mask = np.zeros(pair[1].shape, dtype=bool)
    mask[5:-5, 5:-5, 5:-5] = rng.random((1, 2, 3)) < 0.7  # where MONAI has values at all
    mask[5, 5, 5] = True
    local = compute_ssim_and_cs(pred, truth, 3, [11] * 3, [1.5] * 3)[0][0, 0].numpy()
    assert ssim_gaussian(*pair, mask) == pytest.approx(local[mask[5:-5, 5:-5, 5:-5]].mean(), abs=1e-5)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_one_map_serves_every_mask(metric, pair, rng):
    mask = rng.random(pair[1].shape) < 0.3
    local = metric.map(*pair)
    assert (metric.of_map(local), metric.of_map(local, mask)) == (metric(*pair), metric(*pair, mask))


def test_a_heading_has_words_and_unit_and_a_number_nobody_named_has_one_too():
    titles = {key: heading(key).title for key in ("psnr", "psnr_tumour", "ssim_foreground", "mae_tumour", "noise_level")}
    assert list(titles.values()) == ["PSNR (dB)", "PSNR tumour (dB)", "SSIM foreground", "MAE tumour", "noise level"]


def test_mae_of_noise_has_a_closed_form(rng):
    truth = rng.random((30, 31, 32))
    noise = rng.normal(0, 0.1, truth.shape)
    deviation = 0.1 * ((1 - 2 / math.pi) / truth.size) ** 0.5
    assert mae(truth + noise, truth) == pytest.approx(0.1 * (2 / math.pi) ** 0.5, abs=6 * deviation)
    assert mae(truth + np.where(truth > 0.5, 0.25, noise), truth, truth > 0.5) == pytest.approx(0.25)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_over_an_empty_mask_nothing_is_defined(metric, pair):
    assert math.isnan(metric(*pair, np.zeros(pair[1].shape, dtype=bool)))


def test_volumes_smaller_than_the_window_have_no_ssim(rng):
    pred, truth = rng.random((2, 30, 6, 30))
    assert math.isnan(ssim(pred, truth))
    assert math.isnan(ssim_gaussian(pred, truth))
    assert math.isfinite(ssim_gaussian(*rng.random((2, 11, 11, 11))))


@pytest.mark.parametrize("axis", range(3))
def test_slices_that_flicker_along_one_axis_stand_out_there_alone(axis, rng):
    truth = rng.random((20, 21, 22))
    shape = [20 if index == axis else 1 for index in range(3)]
    flicker = np.resize([0.5, -0.5], (truth.shape[axis], 1, 1)).reshape(-1) * np.ones(truth.shape[axis])
    shape[axis] = -1
    pred = truth + flicker.reshape(shape)
    found = [slice_consistency(pred, truth, a) for a in range(3)]
    assert [value == pytest.approx(1) for value in found] == [a != axis for a in range(3)]
    assert found[axis] > 2  # a step of 1 on top of steps of 1/3


def test_slice_consistency_is_the_ratio_of_the_steps_between_slices(pair):
    pred, truth = pair
    assert slice_consistency(truth * 0.3 + 5, truth, 1) == pytest.approx(0.3, rel=1e-5)
    steps = [sum(np.abs(v[..., k + 1] - v[..., k]).sum(dtype=float) for k in range(12)) for v in (pred, truth)]
    assert slice_consistency(pred, truth, 2) == pytest.approx(steps[0] / steps[1])


def test_slice_consistency_counts_neighbours_that_both_lie_in_the_mask(pair, rng):
    pred, truth = pair
    mask = rng.random(truth.shape) < 0.6
    voxels = [tuple(voxel) for voxel in np.argwhere(mask[:-1]) if mask[voxel[0] + 1, voxel[1], voxel[2]]]
    steps = [sum(abs(float(v[i + 1, j, k]) - float(v[i, j, k])) for i, j, k in voxels) for v in (pred, truth)]
    assert slice_consistency(pred, truth, 0, mask) == pytest.approx(steps[0] / steps[1])
    assert math.isnan(slice_consistency(pred, truth, 0, np.zeros_like(mask)))
    assert math.isnan(slice_consistency(pred, np.ones_like(truth), 0))


def test_the_measurement_error_is_that_of_the_block_averages(rng):
    truth, pred = rng.random((2, 8, 9, 6))
    errors = [  # 9 voxels are two blocks of 4 and one that is not whole
        (pred - truth)[i : i + 2, j : j + 4, k : k + 3].mean() for i in (0, 2, 4, 6) for j in (0, 4) for k in (0, 3)
    ]
    assert measurement_error(pred, truth, BlockAverage((2, 4, 3))) == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert math.isnan(measurement_error(pred, truth, BlockAverage((16, 1, 1))))


def test_a_projected_prediction_has_no_measurement_error(rng):
    average = BlockAverage((4, 4, 2))
    pred, truth = torch.from_numpy(rng.random((2, 8, 12, 6)))
    assert measurement_error(pred.numpy(), truth.numpy(), average) > 0.01
    projected = average.project(pred, average(truth)).numpy()
    assert measurement_error(projected, truth.numpy(), average) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("degradation", [None, BlockAverage((4, 4, 4))], ids=["translation", "super-resolution"])
def test_an_uncertainty_is_scaled_like_differences_within_a_prediction(degradation, seed):
    label, pred = torch.rand(2, 1, 5, 6, 7) * torch.tensor([300.0, 9.0]).view(2, 1, 1, 1, 1) - 2
    scaled = ScaleToTruthd(degradation)({"pred": pred, "label": label, "uncertainty": pred - pred.min()})
    torch.testing.assert_close(scaled["uncertainty"], scaled["pred"] - scaled["pred"].min(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gain", [0.01, 40.0])
def test_a_translation_is_measured_in_any_units(gain, seed):
    truth = torch.rand(1, 12, 12, 12).where(torch.ones(1, 12, 12, 12).tril() > 0, 0.0)
    pred = truth + 0.1 * torch.rand_like(truth) * (truth > 0)
    one, other = (ScaleToTruthd()({"pred": factor * pred, "label": truth})["pred"] for factor in (1.0, gain))
    torch.testing.assert_close(other, one)
    same = ScaleToTruthd()({"pred": gain * truth, "label": truth})
    torch.testing.assert_close(same["pred"], same["label"])


def test_volumes_are_scaled_by_the_range_of_the_truth_without_clipping(seed):
    label = torch.rand(1, 5, 6, 7) * 300 - 40
    pred = torch.cat([label + 500, torch.rand(1, 5, 6, 7)])
    scaled = ScaleToTruthd(BlockAverage((4, 4, 4)))({"pred": pred, "label": label, "case": "a"})
    assert scaled["case"] == "a"
    assert (scaled["label"].min(), scaled["label"].max()) == (0, 1)
    assert scaled["pred"].shape == (1, 5, 6, 7)
    torch.testing.assert_close(scaled["pred"], scaled["label"] + 500 / (label.max() - label.min()))


def test_a_fitted_psnr_forgives_one_gain_and_offset_within_the_foreground_and_nothing_else(pair):
    pred, truth = pair
    truth[:, :4] = 0
    pred[:, :4] = 0
    inside = truth > 0
    design = np.stack([pred[inside], np.ones(inside.sum())], axis=1).astype(np.float64)
    residual = np.linalg.lstsq(design, truth[inside].astype(np.float64))[1][0]
    assert psnr_fitted(pred, truth) == pytest.approx(-10 * np.log10(residual / truth.size), abs=1e-6)
    assert psnr_fitted(pred, truth, inside) == pytest.approx(-10 * np.log10(residual / inside.sum()), abs=1e-6)
    other = np.where(inside, 3 - 2 * pred.astype(np.float64), pred)
    assert psnr_fitted(other, truth) == pytest.approx(psnr_fitted(pred, truth), abs=1e-4)
    assert psnr_fitted(pred, truth) >= psnr(pred, truth)
    bright = np.where(inside, pred, 0.5)
    assert psnr_fitted(bright, truth, ~inside) == pytest.approx(-20 * np.log10(0.5))  # the background is not fitted


def test_a_perfect_result_has_no_error_to_fit(pair):
    truth = pair[1]
    truth[:, :4] = 0
    assert psnr_fitted(truth, truth) == psnr_fitted(truth, truth, truth > 0) == float("inf")


def test_a_constant_result_is_fitted_by_the_mean_of_the_truth(pair):
    truth = pair[1]
    assert psnr_fitted(np.full_like(truth, 7), truth, truth > 0) == pytest.approx(
        -10 * np.log10(truth[truth > 0].var()), abs=1e-3
    )


@pytest.fixture
def tumour(pair, rng):
    """Truth in which a tumour is brighter than the rest of the foreground, and where it is."""
    truth = pair[1] + 0.01
    mask = np.zeros(truth.shape, dtype=bool)
    mask[3:7, 4:9, 2:8] = True
    truth[mask] += 0.4
    truth[:2] = 0
    return truth, mask


def test_the_contrast_and_the_auc_of_a_tumour_equal_their_definitions(pair, tumour):
    pred, (truth, mask) = pair[0], tumour
    found = tumour_metrics(pred, truth, mask)
    rest = ~mask & (truth > 0)
    contrasts = [(float(v[mask].mean()) - float(v[rest].mean())) / float(v[rest].std()) for v in (pred, truth)]
    # Of float32, and perhaps next to none.
    assert found["tumour_contrast"] == pytest.approx(contrasts[0] / contrasts[1], rel=1e-4, abs=1e-5)
    for key, volume in (("tumour_auc", pred), ("tumour_auc_truth", truth)):
        assert found[key] == pytest.approx(roc_auc_score(mask[truth > 0], volume[truth > 0]), abs=1e-9)


def test_a_result_without_the_tumour_shows_in_contrast_and_auc_whatever_its_units(tumour, rng):
    truth, mask = tumour
    assert tumour_metrics(5 * truth + 2, truth, mask)["tumour_contrast"] == pytest.approx(1, rel=1e-5)
    without = truth.copy()
    without[mask] = rng.choice(truth[~mask & (truth > 0)], int(mask.sum()))
    found = tumour_metrics(without, truth, mask)
    assert abs(found["tumour_contrast"]) < 0.5  # of 120 voxels: five standard errors
    assert found["tumour_auc"] == pytest.approx(0.5, abs=0.15)  # of 120 voxels: five standard errors
    assert tumour_metrics(np.where(mask, 1, 0), truth, mask)["tumour_auc"] == 1
    assert tumour_metrics(np.zeros_like(truth), truth, mask)["tumour_auc"] == 0.5  # ties


def test_without_a_tumour_or_anything_else_there_is_no_contrast(tumour):
    truth, mask = tumour
    for nowhere in (np.zeros_like(mask), truth > 0):
        assert all(math.isnan(value) for value in tumour_metrics(truth, truth, nowhere).values())
