# SPDX-License-Identifier: Apache-2.0
"""How well tumours are found with the real, the degraded and the synthesised modality, as one file."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance
from torch import Tensor

from ..files import write_json
from ..running.record import record
from .downstream import DEGRADED, REAL

logger = logging.getLogger(__name__)
DOWNSTREAM = "downstream.json"
Scores = dict[str, dict[str, float | None]]  # region -> dice, hd95; None where not defined
Case = dict[str, Scores]  # version -> scores


class DownstreamResults:
    """Measures every case of a `CaseEvaluator` that segments the versions of `VersionsOfCased`; writes `downstream.json` into
    `output_dir`. docs/downstream.md explains the numbers.

    regions: names of the channels; methods: names of the synthesised versions, after the real and the degraded one, and the
    folders of the runs that made them; system: what tells this run from others.
    """

    def __init__(
        self, output_dir: str | Path, *, regions: Sequence[str], methods: Mapping[str, Path], system: Mapping[str, Any]
    ) -> None:
        self.folder, self.system = Path(output_dir).expanduser(), dict(system)
        self.regions, self.versions = list(regions), [REAL, DEGRADED, *methods]
        self.methods = {name: _told_by(folder) for name, folder in methods.items()}
        self.restart()

    def attach(self, engine: Engine) -> None:
        """Measure after each case, write after the last."""
        engine.add_event_handler(Events.STARTED, self.restart)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def restart(self, engine: Any = None) -> None:
        """Forget the cases of an earlier run."""
        self.cases: dict[str, Case] = {}
        self.empty: list[str] = []

    def measure(self, engine: Any) -> None:
        """Dice and HD95 of the case just done, and a line for every region that is empty."""
        if not engine.state.output:
            return
        output, name = engine.state.output[0], engine.done[-1]
        spacing = [float(side) for side in affine_to_spacing(output["label"].affine)]
        scores = segmentation_scores(output["pred"], output["label"], spacing)
        self.cases[name] = {
            version: dict(zip(self.regions, of_version, strict=True))
            for version, of_version in zip(self.versions, scores, strict=True)
        }
        for line in empty_regions(name, self.cases[name]):
            logger.warning(line)
            self.empty.append(line)

    def write(self, engine: Any) -> None:
        """The file, and the means in the log."""
        mean = means(self.cases, self.versions, self.regions)
        content = {
            "system": self.system,
            "methods": self.methods,
            "n": len(self.cases),
            "mean": mean,
            "recovery": {method: recoveries(mean, method) for method in self.versions[2:]},
            "cases": self.cases,
            "empty": self.empty,
            "failures": engine.failures,
        }
        write_json(self.folder / DOWNSTREAM, content)
        for version, of_version in mean.items():
            told = [
                f"{region} Dice {self._told(s, 'dice')} HD95 {self._told(s, 'hd95', ' mm')}" for region, s in of_version.items()
            ]
            logger.info(f"{version}: {', '.join(told)}")

    def _told(self, means_of: Mapping[str, Any], metric: str, unit: str = "") -> str:
        """A mean, and of how many cases it is where it is not of all."""
        value, count = means_of[metric], means_of[f"{metric}_n"]
        number = "-" if value is None else f"{value:.3f}{unit}"
        return number if count == len(self.cases) else f"{number} ({count} of {len(self.cases)})"


def segmentation_scores(pred: Tensor, label: Tensor, spacing: Sequence[float]) -> list[list[dict[str, float | None]]]:
    """Dice and 95th percentile Hausdorff distance in mm, per version and region.

    pred: binary (V, R, H, W, D); label: (R, H, W, D); spacing: mm a voxel. Both are None where the truth is empty; where only
    the prediction is, Dice is 0 and the distance None.
    """
    truth = label.as_subclass(Tensor).expand_as(pred)
    dice = compute_dice(pred, truth, include_background=True, ignore_empty=True)
    with warnings.catch_warnings():  # of empty regions, which we name ourselves
        warnings.simplefilter("ignore")
        hd95 = compute_hausdorff_distance(pred, truth, include_background=True, percentile=95, spacing=list(spacing))
    return [
        [{"dice": _defined(d), "hd95": _defined(h)} for d, h in zip(dice_of, hd95_of, strict=True)]
        for dice_of, hd95_of in zip(dice.tolist(), hd95.tolist(), strict=True)
    ]


def empty_regions(name: str, case: Case) -> list[str]:
    """A line for every region that the truth or a segmentation lacks."""
    lines = [f"case {name}: the truth has no {region}" for region, s in case[REAL].items() if s["dice"] is None]
    for version, of_version in case.items():
        missed = [region for region, s in of_version.items() if s["dice"] is not None and s["hd95"] is None]
        lines += [f"case {name}: no {region} was found with the {version} modality" for region in missed]
    return lines


def means(cases: Mapping[str, Case], versions: Sequence[str], regions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Version -> region -> mean `dice` and `hd95` over the cases that have them, and how many those are (`*_n`)."""
    result: dict[str, dict[str, Any]] = {}
    for version in versions:
        result[version] = {region: {} for region in regions}
        for region, means_of in result[version].items():
            for metric in ("dice", "hd95"):
                values = [value for case in cases.values() if (value := case[version][region][metric]) is not None]
                means_of[metric] = sum(values) / len(values) if values else None
                means_of[f"{metric}_n"] = len(values)
    return result


def recoveries(mean: Mapping[str, Mapping[str, Mapping[str, float | None]]], method: str) -> dict[str, float | None]:
    """Of each region the share of the lost Dice that a method brings back, from mean Dice.

    `(prediction - degraded) / (real - degraded)`, the recovery rate of Zhu et al. 2025, Sec. 4.3; None where nothing was lost.
    """
    return {
        region: recovery(*(mean[version][region]["dice"] for version in (method, DEGRADED, REAL))) for region in mean[method]
    }


def recovery(synthesised: float | None, degraded: float | None, real: float | None) -> float | None:
    """Of one region; below 0 where the method is worse than the degraded input, above 1 where better than the real one."""
    if synthesised is None or degraded is None or real is None or math.isclose(real, degraded, abs_tol=1e-6):
        return None
    return (synthesised - degraded) / (real - degraded)


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _told_by(folder: Path) -> dict[str, Any]:
    """Task and system of the run that left a folder, if it left a record: the folder may be gone when tables are made."""
    told = record(folder)
    return {key: told[key] for key in ("task", "system") if key in told}
