# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts experiment`: trains, runs and measures the systems of a table, and goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai.bundle import run

from .. import bundle_root, sha256
from ..errors import BadInput
from ..evaluation.tables import tables
from ..training.checkpoint import export_weights
from .systems import EXPERIMENTS, GROUPS, SYSTEMS, TRAININGS

STEPS_PER_EPOCH = 50  # a training that is killed loses no more
DONE = "done.json"


def experiment(
    name: str, dataset_dir: str, output: str, *, systems: Sequence[str] | None = None, plane_steps: int = 1500,
    volume_steps: int = 1300, options: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Train, evaluate and tabulate the systems of an experiment; what is complete in `output` is not repeated.

    systems: some of them; plane_steps, volume_steps: optimiser steps of every training in 2D and in 3D, equal for systems that
    are compared; options: keys of the configs for all stages that have them, such as size or precision.
    Leaves `output/trainings/NAME`, `output/systems/NAME/results.json` and `output/tables.md`. Raises BadInput for unknown
    names, and for a training in `output` that was made with another budget or other options.
    """
    if name not in EXPERIMENTS:
        raise BadInput(f"no experiment '{name}'; choose one of {', '.join(EXPERIMENTS)}")
    chosen = EXPERIMENTS[name].systems if systems is None else tuple(systems)
    if unknown := [system for system in chosen if system not in SYSTEMS]:
        raise BadInput(f"no system '{unknown[0]}'; choose from {', '.join(SYSTEMS)}")
    stages = _Stages(EXPERIMENTS[name].task, dataset_dir, Path(output).expanduser(), plane_steps, volume_steps, options or {})
    for number, system in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {system}", flush=True)
        stages.evaluate(system)
    tables([str(stages.folder / "systems")], output=str(stages.folder / "tables.md"))
    print(stages.folder / "tables.md")


class _Stages:
    """Trainings and evaluations of one task, each done at most once."""

    def __init__(
        self, task: str, dataset_dir: str, folder: Path, plane_steps: int, volume_steps: int, options: Mapping[str, Any]
    ) -> None:
        self.task, self.folder, self.options = task, folder, dict(options)
        self.dataset_dir = str(Path(dataset_dir).expanduser().resolve())
        self.steps = {"train_2d": plane_steps, "train_3d": volume_steps}

    def evaluate(self, name: str) -> None:
        """`results.json` of a system, unless it is there for these weights and without failures."""
        system, folder = SYSTEMS[name], self.folder / "systems" / name
        weights = self._weights(system.weights)
        path = folder / "results.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["model"]["sha256"] == sha256(weights) and not content["failures"]:
                return
        with suppress(SystemExit):  # after the file was written: a case failed, and the tables say which
            told = {"ckpt_path": weights, "output_dir": folder, "handlers#0#system#name": name}
            self._run("evaluate", "evaluating", system.overlays, {**system.options, **told})

    def _weights(self, name: str) -> Path:
        """A training's weights, or those of a group of planes in one file."""
        if name not in GROUPS:
            return self._train(name)
        for plane in GROUPS[name]:
            self._train(plane)
        joined = self.folder / "trainings" / f"{name}.pt"
        pattern = self.folder / "trainings" / GROUPS[name][0].replace("coronal", "{plane}") / "latest.pt"
        if not joined.is_file():
            export_weights(str(pattern), str(joined))
        return joined

    def _train(self, name: str) -> Path:
        """`latest.pt` of a complete training."""
        training, folder = TRAININGS[name], self.folder / "trainings" / name
        steps = self.steps[training.workflow]
        budget = {"steps_per_epoch": min(STEPS_PER_EPOCH, steps), "max_epochs": max(steps // STEPS_PER_EPOCH, 1)}
        made = {"task": self.task, "steps": steps, "options": self.options}
        marker = folder / DONE
        if marker.is_file():
            if (before := json.loads(marker.read_text(encoding="utf-8"))) != made:
                raise BadInput(f"{folder}: was made with {before}, not {made}; give --output another folder")
            return folder / "latest.pt"
        members = {"plane_weights": self._weights(training.members)} if training.members else {}
        places = {"ckpt_dir": folder, "cache_dir": self.folder / "cache", **members}
        print(f"training {name}, {steps} steps", flush=True)
        never = {"val_interval": 10**6}  # validation is for choosing, and nothing is chosen here
        self._run(training.workflow, "training", training.overlays, {**training.options, **budget, **places, **never})
        marker.write_text(json.dumps(made))
        return folder / "latest.pt"

    def _run(self, workflow: str, run_id: str, overlays: str, options: Mapping[str, Any]) -> None:
        """A workflow of the bundle in this process, with the task and what is asked for all of them."""
        files = [str(Path(bundle_root(), "configs", f"{name}.yaml")) for name in (workflow, self.task, *overlays.split())]
        told = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        run(run_id=run_id, config_file=files, dataset_dir=self.dataset_dir, **{**self.options, **told})
