# SPDX-License-Identifier: Apache-2.0
"""Measuring what an earlier run, or another tool, left on disk."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from monai.data.meta_tensor import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor

from ..data.dicom import DicomSeries
from ..data.doubts import GRID_TOLERANCE_MM, distance_mm
from ..data.identifiers import FILE, Identifiers
from ..data.meta_tensors import make_volume
from ..data.volumes import read_volume
from ..errors import BadInput
from ..measurement import AsScanned, Degradation
from ..measurement.intensity import intensity_range
from ..running.record import record
from .metrics import gain_and_offset, psnr, psnr_fitted

logger = logging.getLogger(__name__)
OTHER_RANGE = 4.0  # times as wide or as narrow as the condition's intensities
FITTED = 6.0  # dB that a gain and an offset may be worth to a result in the units of the truth,
RIGHT = 26.0  # dB of the foreground, an error of 5 % of the range, from which on none is doubted


class NoInference(Inferer):
    """Stands in `evaluate.yaml` where nothing is to be inferred."""

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The first condition."""
        return inputs[:, :1]


class ReadPredictiond(MapTransform):
    """Takes `pred`, and `uncertainty` where there is one, from `{predictions}/{case}/{case}_pred.nii.gz`.

    predictions: the output_dir of `inference.yaml` or `evaluate.yaml`, or a folder laid out alike; cases: those of the run, to
    name predictions that have no truth among them; degradation: of the task; output_dir: of the run, another folder. They must
    lie on the truth's grid and, where there is a degradation, be in the units of the first condition; without one they are
    measured in units of their own. One that a gain and an offset bring much closer to the truth is doubted.
    Raises BadInput where both folders are one, and for a case without prediction, or with one of another grid or range or that
    cannot be read.
    """

    def __init__(
        self, predictions: str, cases: Sequence[Mapping[str, Any]], degradation: Degradation | AsScanned | None = None,
        *, output_dir: str = "",
    ) -> None:  # fmt: skip
        super().__init__(("image", "label"))
        self.folder = _existing(predictions)
        if output_dir and self.folder.resolve() == Path(output_dir).expanduser().resolve():
            raise BadInput(f"{predictions}: is measured and cannot be the output too; give another --output_dir")
        self.degradation = degradation
        self.seconds = {case: told.get("seconds") for case, told in record(self.folder).get("cases", {}).items()}
        identifiers = Identifiers(self.folder / FILE)
        for case in cases:
            if isinstance(first := (case.get("image") or [None])[0], DicomSeries):
                identifiers.check_same(str(case["case"]), first.study_uid)
        known = {str(case["case"]) for case in cases}
        if strays := sorted(path.parent.name for path in self.folder.glob("*/*_pred.nii.gz") if path.parent.name not in known):
            logger.warning(f"{self.folder}: {len(strays)} predictions have no truth in this split, such as {strays[0]}")

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the volumes in RAS, `doubts` of their units and, as the earlier run told them, its seconds."""
        d, case = dict(data), str(data["case"])
        pred = self._read(case, "pred", d["label"])
        if self.degradation is not None:
            height, width, depth = (int(side) for side in d["label"].meta["grid_shape"])  # without the padding, which is 0
            _check_units(pred[:, :height, :width, :depth], d["image"][:1], case)
            d["doubts"] = _doubts_of_units(pred, d["label"][:1])
        d["pred"] = pred
        if self._path(case, "uncertainty").is_file():
            d["uncertainty"] = self._read(case, "uncertainty", d["label"])
        return {**d, "seconds": self.seconds.get(case)}

    def _path(self, case: str, suffix: str) -> Path:
        return self.folder / case / f"{case}_{suffix}.nii.gz"

    def _read(self, case: str, suffix: str, label: MetaTensor) -> MetaTensor:
        """One volume on the padded grid of the label (1, H, W, D)."""
        path = self._path(case, suffix)
        if not path.is_file():
            raise BadInput(f"case {case}: there is no {path}; infer it first, or give another --predictions")
        volume = read_volume(path, loop=bool(label.meta.get("loop", False)))
        grid = [int(side) for side in label.meta["grid_shape"]]
        affine = np.asarray(label.affine)
        if list(volume.shape[1:]) != grid or distance_mm(np.asarray(volume.affine), affine, grid) > GRID_TOLERANCE_MM:
            raise BadInput(f"case {case}: {path} lies on another grid than the truth; resample it first")
        pads = [pad for side, has in zip(reversed(label.shape[1:]), reversed(grid), strict=True) for pad in (0, side - has)]
        return make_volume(F.pad(volume.as_tensor(), pads), affine, volume.meta)


def system_of(predictions: str) -> dict[str, Any]:
    """What the earlier run says of itself in its record, or only where it lies."""
    return {"predictions": str(predictions), **record(_existing(predictions)).get("system", {})}


def _existing(predictions: str) -> Path:
    folder = Path(str(predictions)).expanduser()
    if not folder.is_dir():
        raise BadInput(f"{predictions}: there is no such folder; give --predictions the output_dir of a run")
    return folder


def _check_units(pred: Tensor, condition: Tensor, case: str) -> None:
    """Raise BadInput where the range is far wider, far narrower or elsewhere."""
    (low, high), (usual_low, usual_high) = (map(float, intensity_range(volume[None])) for volume in (pred, condition))
    width, usual = high - low, usual_high - usual_low
    if not usual / OTHER_RANGE < width < usual * OTHER_RANGE or abs(low - usual_low) > usual:
        fact = f"case {case}: the prediction spans {low:.4g} to {high:.4g}, its condition {usual_low:.4g} to {usual_high:.4g}"
        raise BadInput(f"{fact}; scale it to the units of the condition first")


def _doubts_of_units(pred: Tensor, label: Tensor) -> list[str]:
    """A line where a gain and an offset are what a result (1, H, W, D) lacks most; none where it is near the truth without."""
    low, high = label.min(), label.max()
    found, truth = (((volume - low) / (high - low)).as_subclass(Tensor)[0].numpy() for volume in (pred, label))
    inside = truth > 0
    if not inside.any():
        return []
    before, after = (metric(found, truth, inside) for metric in (psnr, psnr_fitted))
    if before > RIGHT or after - before < FITTED:
        return []
    gain, offset = gain_and_offset(found[inside], truth[inside])
    fact = f"a gain of {gain:.3g} and an offset of {offset:+.3g} of the truth's range"
    return [
        f"the prediction looks to be in other units than the truth: {fact} raise its PSNR from {before:.1f} to {after:.1f} dB"
    ]
