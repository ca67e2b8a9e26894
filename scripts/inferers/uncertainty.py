# SPDX-License-Identifier: Apache-2.0
"""Takes mean and standard deviation of several samples apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import MapTransform


class SplitUncertaintyd(MapTransform):
    """Splits `pred` (2, H, W, D), as several samples give it, into `pred` and `uncertainty` (1, H, W, D) each."""

    def __init__(self) -> None:
        super().__init__(("pred",))

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Leaves a single channel alone."""
        pred = data["pred"]
        return {**data, "pred": pred[:1], "uncertainty": pred[1:]} if len(pred) == 2 else dict(data)
