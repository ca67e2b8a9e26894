# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scripts.evaluation.frames import frame_psnr, frame_ssim, temporal_error


@pytest.fixture
def loops(rng):
    truth = rng.uniform(-20, 200, (24, 20, 6)).astype(np.float32)
    return truth + rng.normal(0, 9, truth.shape).astype(np.float32), truth


def test_psnr_and_ssim_are_scikit_image_s_frame_by_frame(loops):
    pred, truth = loops
    high = float(np.ptp(truth))
    psnr = [peak_signal_noise_ratio(truth[..., t], pred[..., t], data_range=high) for t in range(6)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": high}
    ssim = [structural_similarity(truth[..., t], pred[..., t], **options) for t in range(6)]
    assert frame_psnr(pred, truth) == pytest.approx(np.mean(psnr), abs=1e-4)  # float32 there
    assert frame_ssim(pred, truth) == pytest.approx(np.mean(ssim), abs=1e-4)


def test_what_is_wrong_in_every_frame_alike_is_no_temporal_error(loops):
    _, truth = loops
    wrong = truth + np.linspace(0, 50, 24, dtype=np.float32)[:, None, None]
    assert temporal_error(wrong, truth, periodic=True) == pytest.approx(0, abs=1e-6)
    assert frame_psnr(wrong, truth) < 30


def test_a_flash_counts_twice_and_its_way_back_where_the_loop_closes(loops):
    _, truth = loops
    flash = truth.copy()
    flash[..., 0] += 10
    share = 10 / np.ptp(truth)
    assert temporal_error(flash, truth, periodic=True) == pytest.approx(share * np.sqrt(2 / 6), rel=1e-4)
    assert temporal_error(flash, truth, periodic=False) == pytest.approx(share * np.sqrt(1 / 5), rel=1e-4)
