# SPDX-License-Identifier: Apache-2.0
"""Image metrics as the paper computed them: volumes scaled by the range of the truth, no clipping."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

Volume = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def psnr(pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB of volumes (H, W, D) in [0, 1]; over the mask's voxels when one is given.

    Infinite for equal volumes.
    """
    error = (pred.astype(np.float64) - truth) ** 2
    mean = float(error.mean() if mask is None else error[mask].mean())
    return float("inf") if mean == 0 else -10 * float(np.log10(mean))


def ssim(pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Structural similarity of volumes (H, W, D) in [0, 1], uniform window of 7x7x7; its mean over the mask when given."""
    whole, local = structural_similarity(truth, pred, win_size=7, data_range=1.0, full=True)
    return float(whole if mask is None else local[mask].mean())
