# SPDX-License-Identifier: Apache-2.0
"""Image metrics as the paper computed them: volumes scaled by the range of the truth, no clipping.

Volumes are (H, W, D), about [0, 1]. With a mask (H, W, D) its voxels alone count. What is not defined, such as a mean over
an empty mask, is NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import structural_similarity

from ..measurement import Degradation

Volume = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
UNIFORM, GAUSSIAN = 7, 11  # voxels a side of the windows of SSIM
SIGMA = 1.5  # voxels, of the Gaussian window


def psnr(pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB of volumes (H, W, D) in [0, 1]; over the mask's voxels when one is given.

    Infinite for equal volumes.
    """
    error = _mean((pred.astype(np.float64) - truth) ** 2, mask)
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def mae(pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Mean absolute error of volumes (H, W, D), as a share of the truth's range."""
    return _mean(np.abs(pred.astype(np.float64) - truth), mask)


def ssim(pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Structural similarity of volumes (H, W, D) in [0, 1], uniform window of 7x7x7; its mean over the mask when given.

    NaN when a side has fewer than 7 voxels.
    """
    return _similarity(ssim_map(pred, truth), mask, UNIFORM)


def ssim_gaussian(pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Structural similarity with the window of Wang et al. 2004 and of MONAI's `SSIMMetric`: Gaussian, 11 voxels wide.

    The same numbers as MONAI's, separably: MONAI convolves with all 1331 weights, which takes 20 times as long. NaN when
    a side has fewer than 11 voxels.
    """
    if min(truth.shape) < GAUSSIAN:
        return float("nan")
    options = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
    return _similarity(structural_similarity(truth, pred, data_range=1.0, full=True, **options)[1], mask, GAUSSIAN)


def ssim_map(pred: Volume, truth: Volume) -> Volume:
    """The local values (H, W, D) that `ssim` averages; all NaN when a side has fewer than 7 voxels."""
    if min(truth.shape) < UNIFORM:
        return np.full(truth.shape, np.nan)
    local: Volume = structural_similarity(truth, pred, win_size=UNIFORM, data_range=1.0, full=True)[1]
    return local


def ssim_of_map(local: Volume, mask: Mask | None = None) -> float:
    """`ssim` from its map: to average the same map more than once."""
    return _similarity(local, mask, UNIFORM)


def slice_consistency(pred: Volume, truth: Volume, axis: int, mask: Mask | None = None) -> float:
    """How much neighbouring slices of the prediction differ, as a multiple of how much those of the truth do.

        sum |pred_(k+1) - pred_k| / sum |truth_(k+1) - truth_k|

    over all pairs of neighbours along `axis` that both lie in the mask. 1 is right; above, slices flicker, as those of
    a network that sees each alone; below, detail along the axis is lost. NaN when no neighbours of the truth differ.
    """
    steps = [np.abs(np.diff(volume.astype(np.float64), axis=axis)) for volume in (pred, truth)]
    if mask is not None:
        both = np.logical_and(*(np.take(mask, span, axis=axis) for span in _neighbours(mask.shape[axis])))
        steps = [step[both] for step in steps]
    found, right = (float(step.sum()) for step in steps)
    return found / right if right else float("nan")


def measurement_error(pred: Volume, truth: Volume, degradation: Degradation) -> float:
    """Root mean square of A(pred) - A(truth) over the blocks of the measurement, as a share of the truth's range.

    Both (H, W, D) with the blocks counted from voxel 0, as `LoadVolumesd` measures RAS volumes; a block that reaches over
    the far end was measured together with padding that is gone, and does not count. NaN when no block is whole.
    """
    sides = (side - side % factor for side, factor in zip(truth.shape, degradation.factors, strict=True))
    whole = tuple(slice(0, side) for side in sides)
    error = torch.from_numpy(pred[whole].astype(np.float64) - truth[whole])
    return float(degradation.measure(error).square().mean().sqrt()) if error.numel() else float("nan")


def _mean(values: Volume, mask: Mask | None) -> float:
    chosen = values if mask is None else values[mask]
    return float(chosen.mean(dtype=np.float64)) if chosen.size else float("nan")


def _similarity(local: Volume, mask: Mask | None, window: int) -> float:
    """Mean of a map of SSIM: over the mask, else where the whole window lies in the volume."""
    if mask is not None:
        return _mean(local, mask)
    inner = slice(window // 2, -(window // 2))
    return _mean(local[inner, inner, inner], None)


def _neighbours(side: int) -> tuple[range, range]:
    return range(side - 1), range(1, side)
