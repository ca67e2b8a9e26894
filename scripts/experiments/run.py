# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts experiment`: trains, runs and measures the systems of a table, and goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai.bundle import run

from .. import bundle_root
from ..errors import BadInput
from ..files import sha256
from ..networks.weights import export_weights, read
from ..tables import tables
from .systems import EXPERIMENTS, GROUPS, ONCE, PATTERNS, SEVERAL, SMALLER, SYSTEMS, TRAININGS, System, Training

STEPS_PER_EPOCH = 50  # a training that is killed loses no more
DONE = "done.json"
WORKFLOWS = ("train_2d", "train_3d", "evaluate")


def experiment(
    name: str, dataset_dir: str, output: str, *, systems: Sequence[str] | None = None, plane_steps: int = 1500,
    volume_steps: int = 1300, steps: Sequence[int] = (1,), options: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Train, evaluate and tabulate the systems of an experiment; what is complete in `output` is not repeated.

    systems: some of them; plane_steps, volume_steps: optimiser steps of every training in 2D and in 3D, equal for systems that
    are compared; steps: of the sampler, each a row of its own; what was trained for one step is asked once; options: keys of
    the configs for all workflows, such as size or precision, and under the name of a workflow (train_2d, train_3d, evaluate)
    those for it alone.
    Leaves `output/trainings/NAME`, `output/systems/NAME_STEPS/results.json` and `output/tables.md`. Raises BadInput for unknown
    names, and for a training in `output` that was made with another budget or other options.
    """
    if name not in EXPERIMENTS:
        raise BadInput(f"no experiment '{name}'; choose one of {', '.join(EXPERIMENTS)}")
    chosen = EXPERIMENTS[name].systems if systems is None else tuple(systems)
    if unknown := [system for system in chosen if system not in SYSTEMS]:
        raise BadInput(f"no system '{unknown[0]}'; choose from {', '.join(SYSTEMS)}")
    budget = {"train_2d": plane_steps, "train_3d": volume_steps}
    stages = _Stages(EXPERIMENTS[name].task, dataset_dir, Path(output).expanduser(), budget, options or {})
    for number, system in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {system}", flush=True)
        for count in steps_of(SYSTEMS[system], steps):
            stages.evaluate(system, count)
    tables([str(stages.folder / "systems")], output=str(stages.folder / "tables.md"))
    print(stages.folder / "tables.md")


def steps_of(system: System, asked: Sequence[int]) -> list[int]:
    """The numbers of sampler steps that a system is evaluated with."""
    if system.steps == ONCE:
        return [1]
    return [count for count in asked if count > 1 or system.steps != SEVERAL]


class _Stages:
    """Trainings and evaluations of one task, each done at most once."""

    def __init__(
        self, task: str, dataset_dir: str, folder: Path, budget: Mapping[str, int], options: Mapping[str, Any]
    ) -> None:
        self.task, self.folder, self.budget, self.given = task, folder, budget, dict(options)
        self.dataset_dir = str(Path(dataset_dir).expanduser().resolve())

    def options(self, workflow: str) -> dict[str, Any]:
        """What was given for a workflow: for all of them and for it alone."""
        shared = {key: value for key, value in self.given.items() if key not in WORKFLOWS}
        return {**shared, **self.given.get(workflow, {})}

    def evaluate(self, name: str, steps: int) -> None:
        """`results.json` of a system, unless it is there for these weights and without failures."""
        system, folder = SYSTEMS[name], self.folder / "systems" / f"{name}_{steps}"
        weights = self._weights(system.weights)
        path = folder / "results.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["model"]["sha256"] == sha256(weights) and not content["failures"]:
                return
        training = TRAININGS.get(system.weights)
        told = {"ckpt_path": weights, "output_dir": folder, "handlers#0#system#name": name, "steps": steps}
        used = self._behind(system.weights)
        if system.options.get("fusion") is False and system.weights in TRAININGS and TRAININGS[system.weights].members:
            used.remove(system.weights)  # of a fusion's file the planes alone
        if training is not None:
            told["handlers#0#system#volumes"] = training.volumes
        told["handlers#0#system#training_days"] = sum(map(self._seconds, used)) / 86400
        with suppress(SystemExit):  # after the file was written: a case failed, and the tables say which
            self._run("evaluate", "evaluating", system.overlays, {**system.options, **told, **self._size(training)})

    def _behind(self, weights: str) -> set[str]:
        """All trainings that weights or a group of planes rest on, themselves among them."""
        if weights in GROUPS:
            return set(GROUPS[weights])
        training = TRAININGS[weights]
        return {weights}.union(*(self._behind(other) for other in (training.members, training.start) if other))

    def _seconds(self, training: str) -> float:
        return float(read(self.folder / "trainings" / training / "latest.pt")["seconds"])

    def _weights(self, name: str) -> Path:
        """A training's weights, or those of a group of planes in one file."""
        if name not in GROUPS:
            return self._train(name)
        joined = self.folder / "trainings" / f"{name}.pt"
        pattern = self._members(name)
        if not joined.is_file():
            export_weights(pattern, str(joined))
        return joined

    def _members(self, group: str) -> str:
        """Where the planes of a group are, once they are trained: a path with `{plane}` in it."""
        for plane in GROUPS[group]:
            self._train(plane)
        return str(self.folder / "trainings" / PATTERNS[group] / "latest.pt")

    def _train(self, name: str) -> Path:
        """`latest.pt` of a complete training."""
        training, folder = TRAININGS[name], self.folder / "trainings" / name
        steps = max(round(training.share * self.budget[training.workflow]), 1)
        made = {"task": self.task, "steps": steps, "options": self.options(training.workflow)}
        marker = folder / DONE
        if marker.is_file():
            if (before := json.loads(marker.read_text(encoding="utf-8"))) != made:
                raise BadInput(f"{folder}: was made with {before}, not {made}; give --output another folder")
            return folder / "latest.pt"
        members = {"plane_weights": self._members(training.members)} if training.members else {}
        start = {"fusion_weights": self._train(training.start)} if training.start else {}
        told = {"ckpt_dir": folder, "cache_dir": self.folder / "cache", **members, **start, **self._size(training)}
        length = {"steps_per_epoch": min(STEPS_PER_EPOCH, steps), "max_epochs": max(steps // STEPS_PER_EPOCH, 1)}
        print(f"training {name}, {steps} steps", flush=True)
        never = {"val_interval": 10**6}  # validation is for choosing, and nothing is chosen here
        self._run(training.workflow, "training", training.overlays, {**training.options, **length, **told, **never})
        marker.write_text(json.dumps(made))
        return folder / "latest.pt"

    def _size(self, training: Training | None) -> dict[str, str]:
        """The smaller fusion of the size asked for, where a training has it."""
        return {"size": SMALLER[self.given.get("size", "compact")]} if training is not None and training.small else {}

    def _run(self, workflow: str, run_id: str, overlays: str, options: Mapping[str, Any]) -> None:
        """A workflow of the bundle in this process, with the task and what is asked for all of them."""
        files = [str(Path(bundle_root(), "configs", f"{name}.yaml")) for name in (workflow, self.task, *overlays.split())]
        told = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        run(run_id=run_id, config_file=files, dataset_dir=self.dataset_dir, **{**self.options(workflow), **told})
