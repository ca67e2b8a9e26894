# SPDX-License-Identifier: Apache-2.0
"""Image metrics as the paper computed them: volumes scaled by the range of the truth, no clipping.

Volumes are (H, W, D), about [0, 1]. With a mask (H, W, D) its voxels alone count. What is not defined, such as a mean over
an empty mask, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

from ..measurement import AsScanned, Degradation

Volume = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
UNIFORM, GAUSSIAN = 7, 11  # voxels a side of the windows of SSIM
SIGMA = 1.5  # voxels, of the Gaussian window


@dataclass(frozen=True)
class Metric:
    """A metric that is a mean over voxels: called with pred and truth, both (H, W, D), and perhaps a mask, it gives the number.

    key: in results.json; title, unit, form: heading and number format in tables and reports; local: (pred, truth) -> map
    (H, W, D); finish: makes the number of the map's mean; window: voxels a side that each value of the map is of; regional:
    whether results have it once more for every one of `REGIONS`.
    """

    key: str
    title: str
    form: str
    local: Callable[[Volume, Volume], Volume]
    finish: Callable[[float], float] = float
    unit: str = ""
    window: int = 1
    regional: bool = False

    def __call__(self, pred: Volume, truth: Volume, mask: Mask | None = None) -> float:
        """The number; NaN over an empty mask, and where a side is shorter than the window."""
        return self.of_map(self.map(pred, truth), mask)

    def map(self, pred: Volume, truth: Volume) -> Volume:
        """The local values (H, W, D), for `of_map`: one map serves every mask."""
        return self.local(pred, truth) if min(truth.shape) >= self.window else np.full(truth.shape, np.nan)

    def of_map(self, local: Volume, mask: Mask | None = None) -> float:
        """The number from the mean of a map: over the mask, else where the whole window lies in the volume."""
        margin = self.window // 2
        inner = tuple(slice(margin, side - margin) for side in local.shape)
        return self.finish(_mean(local[inner] if mask is None else local[mask]))

    def heading(self, region: str = "") -> Heading:
        """As "PSNR foreground (dB)"."""
        unit = f"({self.unit})" if self.unit else ""
        return Heading(" ".join(filter(None, (self.title, region, unit))), self.form)


class Heading(NamedTuple):
    """How tables and reports show a number of results.json: times `scale`, in a format."""

    title: str
    form: str
    scale: float = 1


def squared_error(pred: Volume, truth: Volume) -> Volume:
    """Of every voxel."""
    return (pred.astype(np.float64) - truth) ** 2


def fitted_error(pred: Volume, truth: Volume) -> Volume:
    """Squared error of every voxel after the one gain and offset that make it least where the truth is above its minimum.

    Outside that foreground the result counts as it is: an offset would only raise the background. Nothing else is lent to the
    result, so that this is what remains when its brightness and contrast are right.
    """
    error, inside = squared_error(pred, truth), truth > 0
    if not error[inside].any():  # of an empty foreground, or a perfect result, which rounding would make less than that
        return error
    gain, offset = gain_and_offset(pred[inside], truth[inside])
    error[inside] = squared_error(gain * pred[inside].astype(np.float64) + offset, truth[inside])
    return error


def gain_and_offset(found: Volume, right: Volume) -> tuple[float, float]:
    """Of some voxels, those that bring what was found closest to what is right: by least squares; gain 0 for a constant."""
    found, right = found.astype(np.float64), right.astype(np.float64)
    about = found - found.mean()
    gain = float(about @ right / spread) if (spread := about @ about) else 0.0
    return gain, float(right.mean() - gain * found.mean())


def absolute_error(pred: Volume, truth: Volume) -> Volume:
    """Of every voxel."""
    return np.abs(pred.astype(np.float64) - truth)


def uniform_similarity(pred: Volume, truth: Volume) -> Volume:
    """Structural similarity in cubes of 7 voxels a side, as in the paper."""
    return structural_similarity(truth, pred, win_size=UNIFORM, data_range=1.0, full=True)[1]


def gaussian_similarity(pred: Volume, truth: Volume) -> Volume:
    """Structural similarity with the window of Wang et al. 2004 and of MONAI's `SSIMMetric`: Gaussian, 11 voxels wide.

    The same numbers as MONAI's, separably: MONAI convolves with all 1331 weights, which takes 20 times as long.
    """
    options = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
    return structural_similarity(truth, pred, data_range=1.0, full=True, **options)[1]


def decibel(error: float) -> float:
    """Of a mean squared error against a range of 1; infinite for equal volumes."""
    return float("inf") if error == 0 else -10 * float(np.log10(error))


# A metric is a line here; errors are shares of the truth's range.
METRICS = (
    psnr := Metric("psnr", "PSNR", ".2f", squared_error, decibel, unit="dB", regional=True),
    psnr_fitted := Metric("psnr_fitted", "PSNR fitted", ".2f", fitted_error, decibel, unit="dB", regional=True),
    ssim := Metric("ssim", "SSIM", ".3f", uniform_similarity, window=UNIFORM, regional=True),
    ssim_gaussian := Metric("ssim_gaussian", "SSIM (Gaussian)", ".3f", gaussian_similarity, window=GAUSSIAN),
    mae := Metric("mae", "MAE", ".4f", absolute_error, regional=True),
)
REGIONS = ("foreground", "tumour")
HEADINGS = {
    **{metric.key: metric.heading() for metric in METRICS},
    **{f"{metric.key}_{region}": metric.heading(region) for region in REGIONS for metric in METRICS if metric.regional},
    "tumour_contrast": Heading("tumour contrast", ".2f"),
    "tumour_auc": Heading("tumour AUC", ".3f"),
    "tumour_auc_truth": Heading("tumour AUC of the truth", ".3f"),
    "psnr_std": Heading("PSNR std over runs (dB)", ".3g"),
    "ssim_std": Heading("SSIM std over runs", ".3g"),
    "mace": Heading("MACE (1e-4)", ".2f", scale=1e4),  # as the paper reports it
    "seconds": Heading("seconds a volume", ".1f"),
}


def heading(key: str) -> Heading:
    """Of any number of a case in results.json."""
    return HEADINGS.get(key, Heading(key.replace("_", " "), ".4g"))


def slice_consistency(pred: Volume, truth: Volume, axis: int, mask: Mask | None = None) -> float:
    """How much neighbouring slices of the prediction differ, as a multiple of how much those of the truth do.

        sum |pred_(k+1) - pred_k| / sum |truth_(k+1) - truth_k|

    over all pairs of neighbours along `axis` that both lie in the mask. 1 is right; above, slices flicker, as those of
    a network that sees each alone; below, detail along the axis is lost. NaN when no neighbours of the truth differ.
    """
    steps = [np.abs(np.diff(volume.astype(np.float64), axis=axis)) for volume in (pred, truth)]
    if mask is not None:
        inside = np.moveaxis(mask, axis, 0)
        steps = [np.moveaxis(step, axis, 0)[inside[1:] & inside[:-1]] for step in steps]
    found, right = (float(step.sum()) for step in steps)
    return found / right if right else float("nan")


def tumour_metrics(pred: Volume, truth: Volume, tumour: Mask) -> dict[str, float]:
    """Whether a tumour is seen in the result, by keys of results.json; PSNR does not notice a missing one.

    tumour_contrast: that of the tumour in the result over that in the truth, 1 is right, 0 is gone, below 0 is inverted; a
    contrast is the difference of the means of tumour and other foreground over the latter's standard deviation (Glass 1976).
    tumour_auc, tumour_auc_truth: the probability that a voxel of the tumour is brighter than another of the foreground, ties
    counted half (Hanley & McNeil 1982), in result and truth; 0.5 tells nothing. NaN where there is no tumour, or nothing else.
    """
    tumour, rest = tumour & (truth > 0), ~tumour & (truth > 0)
    parts = [(volume[tumour].astype(np.float64), volume[rest].astype(np.float64)) for volume in (pred, truth)]
    if not (tumour.any() and rest.any()):
        return dict.fromkeys(("tumour_contrast", "tumour_auc", "tumour_auc_truth"), float("nan"))
    ours, theirs = (_contrast(*part) for part in parts)
    ratio = ours / theirs if theirs else float("nan")
    return {"tumour_contrast": ratio, "tumour_auc": _auc(*parts[0]), "tumour_auc_truth": _auc(*parts[1])}


def _contrast(tumour: Volume, rest: Volume) -> float:
    deviation = float(rest.std())
    return float(tumour.mean() - rest.mean()) / deviation if deviation else float("nan")


def _auc(above: Volume, below: Volume) -> float:
    """Mann and Whitney's U as a share of all pairs."""
    ranks = rankdata(np.concatenate([above, below]))[: above.size]
    return float(ranks.mean() - (above.size + 1) / 2) / below.size


def measurement_error(pred: Volume, truth: Volume, degradation: Degradation | AsScanned) -> float:
    """Root mean square of A(pred) - A(truth) over the blocks of the measurement, as a share of the truth's range.

    Both (H, W, D) with the blocks counted from voxel 0, as `LoadVolumesd` measures RAS volumes; a block that reaches over
    the far end was measured together with padding that is gone, and does not count. NaN when no block is whole.
    """
    operator = degradation.on(truth.shape)
    sides = (side - side % factor for side, factor in zip(truth.shape, operator.factors, strict=True))
    whole = tuple(slice(0, side) for side in sides)
    error = torch.from_numpy(pred[whole].astype(np.float64) - truth[whole])
    return float(operator.measure(error).square().mean().sqrt()) if error.numel() else float("nan")


def _mean(chosen: Volume) -> float:
    return float(chosen.mean(dtype=np.float64)) if chosen.size else float("nan")
