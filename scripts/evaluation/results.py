# SPDX-License-Identifier: Apache-2.0
"""What was measured in a run, case by case, as one file."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.transforms.spatial.array import Orientation
from torch import Tensor

from ..data.contents import content_of
from ..errors import listed
from ..measurement import AsScanned, Degradation, Task
from ..measurement.planes import PLANES
from ..running.record import RunRecord, entries_of, facts_of
from .features import Features
from .frechet import FeatureDistances
from .metrics import METRICS, REGIONS, measurement_error, slice_consistency, tumour_metrics
from .mmd import VoxelMMD
from .uncertainty_metrics import calibration_curve, covered, mace, risk_coverage, run_spread

logger = logging.getLogger(__name__)
to_ras = Orientation(axcodes="RAS", labels=None)
Volume = npt.NDArray[np.float32]
CALIBRATION_BINS = 10
Metrics = dict[str, float | None]  # None, in the file null: not defined for this case, or infinite


class Results(RunRecord):
    """Measures every case of a `CaseEvaluator` and adds to its record: metrics and their means, and of all cases together
    MMD (`VoxelMMD`), FID and KID (`FeatureDistances`) and the uncertainty's calibration. docs/evaluation.md explains them.

    features: the extractor of FID and KID, None for neither; the others as for `RunRecord`.
    Foreground is where the truth is above its minimum. A case without one has null for what needs it; a case whose
    prediction or truth is not finite counts as failed. Memory does not grow with the cases but for their features.
    """

    def __init__(
        self, path: str, system: Mapping[str, Any], inferer: Any = None, *, weights: str | None = None,
        task: Task | None = None, features: Features | None = None, degradation: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(path, system, inferer, weights=weights, task=task)
        self.features, self.degradation = features or None, None if self.task is None else self.task.degradation

    def attach(self, engine: Engine) -> None:
        """Measure after each case, write after the last."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)

    def restart(self, engine: Any = None) -> None:
        """Forget the cases of an earlier run."""
        super().restart(engine)
        self.cases: dict[str, Metrics] = {}
        self.curves: list[list[list[float]]] = []
        self.risks: list[list[list[float]]] = []
        self.mmd = VoxelMMD()
        self.distances = FeatureDistances(self.features)

    def measure(self, engine: Any) -> None:
        """Metrics of the case just done; nothing when it failed, and it has failed when its voxels are not finite."""
        if not engine.state.output:
            return
        output, case = engine.state.output[0], str(engine.state.batch[0]["case"])
        volumes = {key: _in_ras(output[key])[0] for key in ("pred", "label", "uncertainty") if key in output}
        batch = engine.state.batch[0]  # where MONAI leaves what was loaded, not made
        mask = _in_ras(batch["mask"])[0] > 0 if "mask" in batch else None
        if fault := _fault(**volumes):
            engine.failures[case] = f"case {case}: {fault}"
            logger.error(engine.failures[case])
            return
        pred, label, foreground = volumes["pred"], volumes["label"], volumes["label"] > 0
        if not foreground.any():
            logger.warning(f"case {case}: the truth has no foreground; what is measured there is left empty")
        self.mmd.add(pred, label)
        self.distances.add(pred, label)
        if mask is not None and not mask.any():
            logger.warning(f"case {case}: its mask is empty; what is measured in the tumour is left empty")
        metrics = case_metrics(**volumes, mask=mask, degradation=self.degradation)
        if "runs" in output:
            metrics |= run_spread(list(_in_ras(output["runs"])), label)
        if "uncertainty" in output and foreground.sum() >= CALIBRATION_BINS:
            curve = calibration_curve(volumes["uncertainty"], pred, label, foreground, bins=CALIBRATION_BINS)
            self.curves.append([half.tolist() for half in curve])
        if "interval" in output and foreground.sum() >= CALIBRATION_BINS:
            interval = _in_ras(output["interval"])[0]
            metrics["coverage"] = covered(interval, pred, label, foreground)
            self.risks.append([half.tolist() for half in risk_coverage(interval, pred, label, foreground)])
        metrics = {name: value if value is not None and np.isfinite(value) else None for name, value in metrics.items()}
        self.cases[case] = {**metrics, "seconds": output.get("seconds", engine.seconds[case])}
        for doubt in output.get("doubts", []):  # of predictions that were read
            engine.doubts[case] = [*engine.doubts.get(case, []), doubt]
            logger.warning(f"case {case}: {doubt}")
        logger.info(f"case {case}: {_told(self.cases[case])}")

    def content(self, engine: Any) -> dict[str, Any]:
        """The record, and what was measured."""
        unwritten = [case for case in self.cases if case in engine.failures]
        self.cases = {case: metrics for case, metrics in self.cases.items() if case not in unwritten}
        mean = _mean(list(self.cases.values()))
        logger.info(f"mean of {len(self.cases)}: {_told(mean)}")
        together = {"mmd": self.mmd.result(), **self.distances.result(), "calibration": self._calibration(), **self._risk()}
        if unwritten:
            logger.warning(f"MMD, FID and curves are left empty: they saw what could not be written ({listed(unwritten)})")
            together = dict.fromkeys(together)
        cases = {case: {**facts_of(engine, case), **metrics} for case, metrics in self.cases.items()}
        truths = {str(entry["case"]): content_of(entry["label"]) for entry in entries_of(engine) if "label" in entry}
        return {**super().content(engine), "n": len(self.cases), "mean": mean, **together, "cases": cases, "truths": truths}

    def _calibration(self) -> dict[str, list[float]] | None:
        """Mean over the cases of `calibration_curve` in the foreground; None without an uncertainty."""
        if not self.curves:
            return None
        predicted, actual = np.mean(self.curves, axis=0)
        return {"predicted": predicted.tolist(), "actual": actual.tolist()}

    def _risk(self) -> dict[str, dict[str, list[float]]]:
        """Mean over the cases of `risk_coverage` in the foreground; nothing without an interval."""
        if not self.risks:
            return {}
        kept, error = np.mean(self.risks, axis=0)
        return {"risk_coverage": {"kept": kept.tolist(), "error": error.tolist()}}


def case_metrics(
    pred: Volume, label: Volume, *, uncertainty: Volume | None = None, mask: npt.NDArray[np.bool_] | None = None,
    degradation: Degradation | AsScanned | None = None,
) -> Metrics:  # fmt: skip
    """All metrics of one case from volumes (H, W, D) in RAS, scaled by the range of the label; None where not defined.

    mask: of the tumour, within which some are taken once more, and which is told from the rest by others.
    """
    regions = dict(zip(REGIONS, (label > 0, mask), strict=True))
    metrics = {}
    for metric in METRICS:
        local = metric.map(pred, label)
        metrics[metric.key] = metric.of_map(local)
        for name, region in regions.items() if metric.regional else ():
            if region is not None:
                metrics[f"{metric.key}_{name}"] = metric.of_map(local, region)
    for plane, axis in PLANES.items():
        metrics[f"slice_consistency_{plane}"] = slice_consistency(pred, label, axis, label > 0)
    if mask is not None:
        metrics |= tumour_metrics(pred, label, mask)
    if degradation is not None:
        metrics["measurement_error"] = measurement_error(pred, label, degradation)
    if uncertainty is not None:
        metrics["mace"] = mace(uncertainty, pred, label)
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
    """(C, H, W, D) as its file stores it -> in RAS: cases that are averaged must lie the same way."""
    turned: Any = to_ras(volume)
    return np.ascontiguousarray(turned.cpu(), dtype=np.float32)
