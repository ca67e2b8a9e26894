# SPDX-License-Identifier: Apache-2.0
"""What was measured in a run, case by case, as one file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.transforms.spatial.array import Orientation
from torch import Tensor

from ..diffusion import Degradation
from ..inferers import FusedScoreInferer
from ..inferers.memory import peak_memory_gb
from ..planes import PLANES
from .features import Features
from .frechet import FeatureDistances
from .metrics import mae, measurement_error, psnr, slice_consistency, ssim_gaussian, ssim_map, ssim_of_map
from .mmd import VoxelMMD
from .uncertainty_metrics import MACE_UNIT, mace

logger = logging.getLogger(__name__)
to_ras = Orientation(axcodes="RAS", labels=None)
Volume = npt.NDArray[np.float32]
Metrics = dict[str, float | None]  # None, in the file null: not defined for this case, or infinite


class Results:
    """Measures every case of a `CaseEvaluator` and writes `results.json`: system, NFE, seconds, metrics and their means,
    and of all cases together MMD (`VoxelMMD`), FID and KID (`FeatureDistances`). docs/evaluation.md explains the numbers.

    path: the file, replaced atomically; system: what tells this run from others; inferer: gives the NFE; features: the
    extractor of FID and KID, None for neither; degradation: what the first condition was measured by, None when it was not.
    Foreground is where the truth is above its minimum. A case without one has null for what needs it; a case whose
    prediction or truth is not finite counts as failed. Memory does not grow with the cases but for their features.
    """

    def __init__(
        self, path: str, system: Mapping[str, Any], inferer: FusedScoreInferer, *,
        features: Features | None = None, degradation: Degradation | None = None,
    ) -> None:  # fmt: skip
        self.path, self.system, self.inferer = Path(path), dict(system), inferer
        self.features, self.degradation = features or None, degradation
        self.restart()

    def attach(self, engine: Engine) -> None:
        """Measure after each case, write after the last."""
        engine.add_event_handler(Events.STARTED, self.restart)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def restart(self, engine: Any = None) -> None:
        """Forget the cases of an earlier run."""
        self.cases: dict[str, Metrics] = {}
        self.mmd = VoxelMMD()
        self.distances = FeatureDistances(self.features)

    def measure(self, engine: Any) -> None:
        """Metrics of the case just done; nothing when it failed, and it has failed when its voxels are not finite."""
        if not engine.state.output:
            return
        output, case = engine.state.output[0], engine.done[-1]
        volumes = {key: _in_ras(output[key]) for key in ("pred", "label", "uncertainty") if key in output}
        if fault := _fault(**volumes):
            engine.failures[case] = f"case {case}: {fault}"
            engine.done.remove(case)
            logger.error(engine.failures[case])
            return
        if not (volumes["label"] > 0).any():
            logger.warning(f"case {case}: the truth has no foreground; what is measured there is left empty")
        self.mmd.add(volumes["pred"], volumes["label"])
        self.distances.add(volumes["pred"], volumes["label"])
        metrics = case_metrics(**volumes, degradation=self.degradation)
        self.cases[case] = {**metrics, "seconds": engine.seconds[case]}
        logger.info(f"case {case}: {_told(self.cases[case])}")

    def write(self, engine: Any) -> None:
        """The file, and the means in the log."""
        mean = _mean(list(self.cases.values()))
        content = {
            "system": {**self.system, "nfe": self.inferer.nfe},
            "n": len(self.cases),
            "mean": mean,
            "mmd": self.mmd.result(),
            **self.distances.result(),
            "peak_memory_gb": peak_memory_gb(),
            "cases": self.cases,
            "failures": engine.failures,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}")
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False))
        temporary.replace(self.path)
        logger.info(f"mean of {len(self.cases)}: {_told(mean)}")


def case_metrics(
    pred: Volume, label: Volume, *, uncertainty: Volume | None = None, degradation: Degradation | None = None
) -> Metrics:
    """All metrics of one case from volumes (H, W, D) in RAS, scaled by the range of the label; None where not defined."""
    foreground, similarity = label > 0, ssim_map(pred, label)
    metrics = {
        "psnr": psnr(pred, label),
        "ssim": ssim_of_map(similarity),
        "ssim_gaussian": ssim_gaussian(pred, label),
        "mae": mae(pred, label),
        "psnr_foreground": psnr(pred, label, foreground),
        "ssim_foreground": ssim_of_map(similarity, foreground),
        "mae_foreground": mae(pred, label, foreground),
    }
    for plane, axis in PLANES.items():
        metrics[f"slice_consistency_{plane}"] = slice_consistency(pred, label, axis, foreground)
    if degradation is not None:
        metrics["measurement_error"] = measurement_error(pred, label, degradation)
    if uncertainty is not None:
        metrics["mace"] = mace(uncertainty, pred, label)
        metrics["mace_in_1e-4"] = metrics["mace"] / MACE_UNIT
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def _fault(pred: Volume, label: Volume, uncertainty: Volume | None = None) -> str | None:
    """Why a case cannot be measured, in a line; None when it can."""
    if not np.isfinite(label).all():
        return "the truth is constant or not finite, so there is no scale to measure on; remove the case"
    if bad := int((~np.isfinite(pred)).sum()):
        return f"the prediction has {bad} voxels that are NaN or infinite; try precision float32 or other weights"
    if uncertainty is not None and not np.isfinite(uncertainty).all():
        return "the uncertainty map has voxels that are NaN or infinite; try precision float32"
    return None


def _mean(cases: Sequence[Metrics]) -> Metrics:
    """Of every metric, the mean over the cases that have it; None when none has."""
    mean: Metrics = {}
    for name in dict.fromkeys(name for case in cases for name in case):
        values = [value for case in cases if (value := case.get(name)) is not None]
        mean[name] = float(np.mean(values)) if values else None
    return mean


def _told(metrics: Metrics) -> str:
    return ", ".join(f"{name} {'-' if value is None else f'{value:.4f}'}" for name, value in metrics.items())


def _in_ras(volume: Tensor) -> Volume:
    """(1, H, W, D) as its file stores it -> (H, W, D) in RAS: cases that are averaged must lie the same way."""
    turned: Any = to_ras(volume)
    return np.ascontiguousarray(turned[0].cpu(), dtype=np.float32)
