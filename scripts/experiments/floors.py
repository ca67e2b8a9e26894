# SPDX-License-Identifier: Apache-2.0
"""What a method must beat: classical interpolation of the measurement."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F

from ..data import LoadVolumesd, find_cases
from ..evaluation.metrics import psnr, ssim
from ..measurement import BlockAverage
from ..measurement.degradations import cubic


def floors(
    dataset_dir: str, *, modality: str = "t1", block: Sequence[int] = (4, 4, 4), split: str = "val",
    max_cases: int | None = None,
) -> None:  # fmt: skip
    """Print PSNR and SSIM of repeated, trilinear, cubic and measurement-consistent cubic input, mean over a split."""
    average = BlockAverage(block)
    load = LoadVolumesd(degradation=average, simulate=True)
    cases = find_cases(dataset_dir, [modality], target=modality, split=split)[:max_cases]
    scores: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        loaded = load(dict[Any, Any](case))
        measured, truth = (loaded[key].as_tensor()[None] for key in ("image", "label"))
        inside = tuple(slice(0, side) for side in loaded["label"].meta["grid_shape"])
        low, high = truth[0, 0][inside].min(), truth[0, 0][inside].max()
        coarse = average.measure(measured)
        fine = [float(factor) for factor in block]
        rivals = {
            "repeat": measured,
            "trilinear": F.interpolate(coarse, scale_factor=fine, mode="trilinear"),
            "cubic": cubic(coarse, average.factors),
            "cubic, consistent": average.interpolate(measured).clamp(low, high),
        }
        for name, volume in rivals.items():
            pair = [((v[0, 0][inside] - low) / (high - low)).numpy() for v in (volume, truth)]
            scores.setdefault(name, []).append((psnr(*pair), ssim(*pair)))
    print(f"n = {len(cases)}\n{'':20}{'PSNR':>8}{'SSIM':>8}")
    for name, values in scores.items():
        mean = np.mean(values, axis=0)
        print(f"{name:20}{mean[0]:8.2f}{mean[1]:8.4f}")
