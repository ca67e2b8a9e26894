# SPDX-License-Identifier: Apache-2.0
"""Metrics of loops (X, Y, T), frame by frame, on the range of the whole loop's truth."""

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from .metrics import SIGMA, decibel

Loop = npt.NDArray[np.floating]


def frame_psnr(pred: Loop, truth: Loop) -> float:
    """Mean PSNR of a frame in dB."""
    errors = ((pred.astype(np.float64) - truth) ** 2).mean(axis=(0, 1)) / _range(truth) ** 2
    return float(np.mean([decibel(error) for error in errors]))


def frame_ssim(pred: Loop, truth: Loop) -> float:
    """Mean SSIM of a frame, with the window of Wang et al. 2004."""
    options = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False, "data_range": _range(truth)}
    frames = zip(np.moveaxis(pred, -1, 0).astype(np.float64), np.moveaxis(truth, -1, 0).astype(np.float64), strict=True)
    return float(np.mean([structural_similarity(right, said, **options) for said, right in frames]))


def temporal_error(pred: Loop, truth: Loop, *, periodic: bool) -> float:
    """Root mean square difference of what changes from a frame to the next, as a share of the range.

    periodic: whether the first frame follows the last.
    """
    error = pred.astype(np.float64) - truth
    steps = error - np.roll(error, 1, axis=-1)
    return float(np.sqrt(np.square(steps if periodic else steps[..., 1:]).mean())) / _range(truth)


def _range(truth: Loop) -> float:
    return float(truth.max()) - float(truth.min())
