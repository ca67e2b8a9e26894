# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scripts.evaluation.uncertainty_metrics import calibration_curve, mace, run_spread


def test_mace_is_the_mean_gap_between_uncertainty_and_error(rng):
    uncertainty, pred, truth = rng.random((3, 4, 5, 6))
    gaps = [abs(s - abs(x - mu)) for s, x, mu in zip(uncertainty.flat, truth.flat, pred.flat, strict=True)]
    assert mace(uncertainty, pred, truth) == pytest.approx(np.mean(gaps))
    mask = truth > 0.5
    assert mace(uncertainty, pred, truth, mask) == pytest.approx(np.mean(np.array(gaps).reshape(4, 5, 6)[mask]))
    assert math.isnan(mace(uncertainty, pred, truth, truth > 2))


def test_mace_is_zero_where_the_error_is_the_uncertainty_on_either_side(rng):
    truth = rng.random((4, 5, 6))
    assert mace(np.full(truth.shape, 0.1), truth + rng.choice([-0.1, 0.1], truth.shape), truth) == pytest.approx(0)


def test_mace_of_a_calibrated_gaussian_has_a_closed_form(rng):
    """The mean of | 1 - |z| | over normal z, here by quadrature: about half the uncertainty itself."""
    z = np.linspace(-12, 12, 200_001)
    expected = np.trapezoid(np.abs(1 - np.abs(z)) * np.exp(-(z**2) / 2) / (2 * math.pi) ** 0.5, z)
    truth = rng.random((40, 40, 40))
    found = mace(np.full(truth.shape, 0.1), truth + rng.normal(0, 0.1, truth.shape), truth)
    assert found == pytest.approx(0.1 * expected, abs=6 * 0.1 / truth.size**0.5)


def test_a_calibrated_map_has_a_curve_on_the_diagonal(rng):
    s = rng.uniform(0.01, 0.2, (30, 30, 30))
    predicted, actual = calibration_curve(s, rng.normal(0, s), np.zeros(s.shape), bins=5)
    edges = np.quantile(s, np.linspace(0, 1, 6))
    assert (np.diff(predicted) > 0).all()
    assert ((edges[:-1] <= predicted) & (predicted <= edges[1:])).all()
    np.testing.assert_allclose(actual, predicted, rtol=6 / (2 * s.size / 5) ** 0.5)


def test_errors_twice_as_large_as_told_lie_twice_as_high(rng):
    s = rng.uniform(0.01, 0.2, (7, 8, 9))
    mask = rng.random(s.shape) < 0.5
    predicted, actual = calibration_curve(s, 2 * s, np.zeros(s.shape), mask, bins=4)
    np.testing.assert_allclose(actual, 2 * predicted)
    assert (predicted**2).mean() == pytest.approx((s[mask] ** 2).mean(), rel=0.02)  # bins differ by a voxel
    with pytest.raises(ValueError, match="8 voxels do not fill 10 bins"):
        calibration_curve(*np.zeros((3, 2, 2, 2)))


def test_the_spread_of_runs_is_that_of_their_scores(rng):
    truth = rng.random((9, 10, 11))
    runs = [truth + rng.normal(0, 0.1, truth.shape) for _ in range(4)]
    found = run_spread(runs, truth)
    psnrs = [peak_signal_noise_ratio(truth, run, data_range=1.0) for run in runs]
    ssims = [structural_similarity(truth, run, win_size=7, data_range=1.0) for run in runs]
    assert found == pytest.approx({"psnr_std": np.std(psnrs, ddof=1), "ssim_std": np.std(ssims, ddof=1)}, rel=1e-6)
    assert all(math.isnan(value) for value in run_spread(runs[:1], truth).values())
