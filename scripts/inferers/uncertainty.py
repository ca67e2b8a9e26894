# SPDX-License-Identifier: Apache-2.0
"""Takes mean, standard deviation and several samples apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import MapTransform


class SplitUncertaintyd(MapTransform):
    """Splits `pred` (2 + k, H, W, D), as k samples give it, into `pred`, `uncertainty` (1, H, W, D) and `runs` (k, H, W, D)."""

    def __init__(self) -> None:
        super().__init__(("pred",))

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Leaves a single channel alone."""
        pred = data["pred"]
        return {**data, "pred": pred[:1], "uncertainty": pred[1:2], "runs": pred[2:]} if len(pred) > 1 else dict(data)
