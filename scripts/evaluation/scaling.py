# SPDX-License-Identifier: Apache-2.0
"""The intensity scale in which the paper computes its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import MapTransform


class ScaleToTruthd(MapTransform):
    """Scales `pred` (its first channel) and `label` by the minimum and maximum of the label: both (1, H, W, D) in about [0, 1].

    No mask and no clipping, as in the paper.
    """

    def __init__(self) -> None:
        super().__init__(("pred", "label"))

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Scale both."""
        low, high = data["label"].min(), data["label"].max()
        return {**data, **{key: (data[key][:1] - low) / (high - low) for key in ("pred", "label")}}
