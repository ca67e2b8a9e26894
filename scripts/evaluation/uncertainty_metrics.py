# SPDX-License-Identifier: Apache-2.0
"""Whether an uncertainty map says how wrong a result is. With several samples `pred` is their mean, `uncertainty` their std."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .metrics import Mask, Volume, psnr, ssim

Curve = npt.NDArray[np.float64]


def mace(uncertainty: Volume, pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
    """Mean absolute calibration error, equation 7 of the paper: `mean_v | s_v - |x_v - mu_v| |`.

    uncertainty: s, the standard deviation (ddof 1) of the samples; pred: mu, their mean; truth: x; all (H, W, D) in [0, 1].
    NaN over an empty mask. Not 0 for a perfect map: an error drawn from N(0, s^2) is s on no single voxel.
    """
    gap = np.abs(uncertainty.astype(np.float64) - np.abs(truth.astype(np.float64) - pred))
    chosen = gap if mask is None else gap[mask]
    return float(chosen.mean()) if chosen.size else float("nan")


def calibration_curve(
    uncertainty: Volume, pred: Volume, truth: Volume, mask: Mask | None = None, *, bins: int = 10
) -> tuple[Curve, Curve]:
    """Predicted and actual size of the errors in bins of rising uncertainty: two curves (bins,), equal for a calibrated map.

    Predicted is the root mean square of s, actual that of the error. The bins are quantiles of s and hold equally many
    voxels, but for one more in the first ones. Raises ValueError with fewer voxels than bins.
    """
    inside = np.ones(truth.shape, dtype=bool) if mask is None else mask
    predicted = uncertainty[inside].astype(np.float64)
    error = pred[inside].astype(np.float64) - truth[inside]
    if predicted.size < bins:
        raise ValueError(f"{predicted.size} voxels do not fill {bins} bins")
    order = np.argsort(predicted, kind="stable")
    return _binned_rms(predicted[order], bins), _binned_rms(error[order], bins)


def _binned_rms(values: Curve, bins: int) -> Curve:
    return np.array([np.sqrt(np.mean(part**2)) for part in np.array_split(values, bins)])


def covered(interval: Volume, pred: Volume, truth: Volume, mask: Mask) -> float:
    """Share of the voxels of a mask whose error is at most the interval; all (H, W, D) in [0, 1]. NaN over an empty mask."""
    inside = np.abs(pred.astype(np.float64) - truth)[mask] <= interval[mask]
    return float(inside.mean()) if inside.size else float("nan")


def risk_coverage(interval: Volume, pred: Volume, truth: Volume, mask: Mask, *, bins: int = 10) -> tuple[Curve, Curve]:
    """Root mean square error of the voxels that are left when the most doubtful ones are left out: two curves (bins,).

    The first is the share that is left, from 1 / bins to 1 (El-Yaniv and Wiener 2010). Raises ValueError with fewer voxels
    than bins.
    """
    error, doubt = pred[mask].astype(np.float64) - truth[mask], interval[mask]
    if error.size < bins:
        raise ValueError(f"{error.size} voxels do not fill {bins} bins")
    order = np.argsort(doubt, kind="stable")
    means = np.cumsum(error[order] ** 2) / np.arange(1, error.size + 1)
    kept = np.arange(1, bins + 1) / bins
    return kept, np.sqrt(means[np.maximum((kept * error.size).astype(int), 1) - 1])


def run_spread(runs: Sequence[Volume], truth: Volume) -> dict[str, float]:
    """`psnr_std` (dB) and `ssim_std`, ddof 1, over runs (H, W, D) of one case with different noise; NaN from a single run."""
    scores = {"psnr_std": [psnr(run, truth) for run in runs], "ssim_std": [ssim(run, truth) for run in runs]}
    return {name: float(np.std(values, ddof=1)) if len(values) > 1 else float("nan") for name, values in scores.items()}
