# SPDX-License-Identifier: Apache-2.0
"""The intensity scale in which the paper computes its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import MapTransform

from ..data.intensity import intensity_range
from ..diffusion import Degradation


class ScaleToTruthd(MapTransform):
    """Scales `pred` (first channel) and `label` by the label's minimum and maximum: both (1, H, W, D), about [0, 1].

    `uncertainty`, where there is one, is a difference of predictions and only multiplied. No mask and no clipping, as in
    the paper. Without a degradation the result is another contrast in the units of its condition, `image`: background and
    bright end of the condition are first laid on those of the label.
    """

    def __init__(self, degradation: Degradation | None = None) -> None:
        super().__init__(("pred", "label"))
        self.degradation = degradation

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Scale all."""
        pred, label = data["pred"][:1], data["label"][:1]
        low, high = label.min(), label.max()
        span = span_of_pred = high - low
        scaled = {"label": (label - low) / span}
        if self.degradation is None:
            condition, target = (intensity_range(volume[None]) for volume in (data["image"][:1], label))
            pred = target.restore(condition.normalize(pred[None]))[0]
            span_of_pred = span * ((condition.high - condition.low) / (target.high - target.low))[0]
        scaled["pred"] = (pred - low) / span
        if "uncertainty" in data:
            scaled["uncertainty"] = data["uncertainty"] / span_of_pred
        return {**data, **scaled}
