# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from scripts.diffusion import BlockAverage
from scripts.evaluation import ScaleToTruthd, psnr, ssim


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


def ssim_map(x, y):
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
    inner = ssim_map(truth, pred)[3:-3, 3:-3, 3:-3]  # whole windows alone
    assert ssim(pred, truth) == pytest.approx(inner.mean(), abs=1e-5)  # computed in float32
    assert ssim(truth, truth) == pytest.approx(1)


def test_metrics_over_a_mask_count_its_voxels_alone(pair, rng):
    pred, truth = pair
    mask = rng.random(truth.shape) < 0.3
    assert ssim(pred, truth, mask) == pytest.approx(ssim_map(truth, pred)[mask].mean(), abs=1e-5)
    by_hand = -10 * np.log10(np.mean((pred[mask].astype(np.float64) - truth[mask]) ** 2))
    assert psnr(pred, truth, mask) == pytest.approx(by_hand, abs=1e-4)
    changed = np.where(mask, pred, rng.random(truth.shape, dtype=np.float32))
    assert psnr(changed, truth, mask) == psnr(pred, truth, mask)


def test_volumes_are_scaled_by_the_range_of_the_truth_without_clipping(seed):
    label = torch.rand(1, 5, 6, 7) * 300 - 40
    pred = torch.cat([label + 500, torch.rand(1, 5, 6, 7)])
    scaled = ScaleToTruthd(BlockAverage((4, 4, 4)))({"pred": pred, "label": label, "case": "a"})
    assert scaled["case"] == "a"
    assert (scaled["label"].min(), scaled["label"].max()) == (0, 1)
    assert scaled["pred"].shape == (1, 5, 6, 7)
    torch.testing.assert_close(scaled["pred"], scaled["label"] + 500 / (label.max() - label.min()))
