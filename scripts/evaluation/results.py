# SPDX-License-Identifier: Apache-2.0
"""What was measured in a run, case by case, as one file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.transforms.spatial.array import Orientation
from torch import Tensor

from ..inferers import FusedScoreInferer
from ..inferers.memory import peak_memory_gb
from .metrics import psnr, ssim
from .mmd import VoxelMMD

logger = logging.getLogger(__name__)
to_ras = Orientation(axcodes="RAS", labels=None)


class Results:
    """Measures every case of a `CaseEvaluator` and writes `results.json`: system, NFE, seconds, metrics and their means,
    and the MMD of all cases together (`VoxelMMD`).

    path: the file, replaced atomically; system: what tells this run from others; inferer: gives the NFE.
    Foreground is where the truth is above its minimum.
    """

    def __init__(self, path: str, system: Mapping[str, Any], inferer: FusedScoreInferer) -> None:
        self.path, self.system, self.inferer = Path(path), dict(system), inferer
        self.restart()

    def attach(self, engine: Engine) -> None:
        """Measure after each case, write after the last."""
        engine.add_event_handler(Events.STARTED, self.restart)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def restart(self, engine: Any = None) -> None:
        """Forget the cases of an earlier run."""
        self.cases: dict[str, dict[str, float]] = {}
        self.mmd = VoxelMMD()

    def measure(self, engine: Any) -> None:
        """Metrics of the case just done; nothing when it failed."""
        if not engine.state.output:
            return
        output = engine.state.output[0]
        pred, truth = (_in_ras(output[key]) for key in ("pred", "label"))
        self.mmd.add(pred, truth)
        foreground = truth > 0
        case = engine.done[-1]
        self.cases[case] = {
            "psnr": psnr(pred, truth),
            "ssim": ssim(pred, truth),
            "psnr_foreground": psnr(pred, truth, foreground),
            "ssim_foreground": ssim(pred, truth, foreground),
            "seconds": engine.seconds[case],
        }
        logger.info(f"case {case}: " + ", ".join(f"{key} {value:.4f}" for key, value in self.cases[case].items()))

    def write(self, engine: Any) -> None:
        """The file, and the means in the log."""
        values = list(self.cases.values())
        mean = {key: float(np.mean([value[key] for value in values])) for key in values[0]} if values else {}
        content = {
            "system": {**self.system, "nfe": self.inferer.nfe},
            "n": len(values),
            "mean": mean,
            "mmd": self.mmd.result(),
            "peak_memory_gb": peak_memory_gb(),
            "cases": self.cases,
            "failures": engine.failures,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}")
        temporary.write_text(json.dumps(content, indent=2))
        temporary.replace(self.path)
        logger.info(f"mean of {len(values)}: " + ", ".join(f"{key} {value:.4f}" for key, value in mean.items()))


def _in_ras(volume: Tensor) -> npt.NDArray[np.float32]:
    """(1, H, W, D) as its file stores it -> (H, W, D) in RAS: cases that are averaged must lie the same way."""
    turned: Any = to_ras(volume)
    return np.ascontiguousarray(turned[0].cpu(), dtype=np.float32)
