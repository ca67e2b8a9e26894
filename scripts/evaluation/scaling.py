# SPDX-License-Identifier: Apache-2.0
"""The intensity scale in which the paper computes its metrics."""

from collections.abc import Mapping
from typing import Any

from monai.transforms import MapTransform

from ..measurement import AsScanned, Degradation
from ..measurement.intensity import IntensityRange, tissue_range


class ScaleToTruthd(MapTransform):
    """Scales `pred` (first channel) and `label` by the label's minimum and maximum: both (1, H, W, D), about [0, 1].

    `runs` (k, H, W, D), where there are several samples, as `pred`; `uncertainty` and `interval` are differences and only
    multiplied. `error` is `|pred - label|` after that. No mask and no clipping, as in the paper. Without a degradation the
    result is another contrast, whose units nobody knows: its background and the median of its tissue are first laid on those
    of the label.
    """

    def __init__(self, degradation: Degradation | AsScanned | None = None) -> None:
        super().__init__(("pred", "label"))
        self.degradation = degradation

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Scale all."""
        label = data["label"][:1]
        low, high = label.min(), label.max()
        scaled, span_of_pred = {"label": (label - low) / (high - low)}, high - low
        own: tuple[IntensityRange, IntensityRange] | None = None
        if self.degradation is None:
            result, truth = own = tissue_range(data["pred"][None, :1]), tissue_range(label[None])
            span_of_pred = span_of_pred * ((result.high - result.low) / (truth.high - truth.low))[0]
        for key, volume in {"pred": data["pred"][:1], "runs": data.get("runs")}.items():
            if volume is not None:
                in_units = volume if own is None else own[1].restore(own[0].normalize(volume[None]))[0]
                scaled[key] = (in_units - low) / (high - low)
        for key in ("uncertainty", "interval"):
            if key in data:
                scaled[key] = data[key] / span_of_pred
        scaled["error"] = (scaled["pred"] - scaled["label"]).abs()
        return {**data, **scaled}
