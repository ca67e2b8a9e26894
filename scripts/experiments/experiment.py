# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts experiment`: trains, runs and measures the systems of a table, and goes on where it stopped."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadInput
from ..networks.weights import export_weights, read
from ..tables import tables
from .study import Stage, Study
from .systems import EXPERIMENTS, GROUPS, ONCE, PATTERNS, SEVERAL, SMALLER, SYSTEMS, TRAININGS, System, Training

STEPS_PER_EPOCH = 50  # a training that is killed loses no more
WORKFLOWS = ("train_2d", "train_3d", "evaluate")
PLACES = ("dataset_dir", "output_dir", "ckpt_dir", "cache_dir", "ckpt_path", "plane_weights", "fusion_weights")


def experiment(
    name: str, dataset_dir: str, output: str, *, systems: Sequence[str] | None = None, plane_steps: int = 1500,
    volume_steps: int = 1300, steps: Sequence[int] = (1,), options: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Train, evaluate and tabulate the systems of an experiment; what is complete in `output` is not repeated.

    systems: some of them; plane_steps, volume_steps: optimiser steps of every training in 2D and in 3D, equal for systems that
    are compared, multiples of 50 or fewer than that; steps: of the sampler, each a row of its own; what was trained for one
    step is asked once; options: keys of the configs for all workflows, such as size or precision, and under the name of a
    workflow (train_2d, train_3d, evaluate) those for it alone.
    Leaves `output/trainings/NAME`, `output/systems/NAME_STEPS/results.json` and `output/tables.md`. Raises BadInput, before
    anything is trained, for unknown names and options, and for what is in `output` and was made from something else.
    """
    if name not in EXPERIMENTS:
        raise BadInput(f"no experiment '{name}'; choose one of {', '.join(EXPERIMENTS)}")
    chosen = EXPERIMENTS[name].systems if systems is None else tuple(systems)
    if unknown := [system for system in chosen if system not in SYSTEMS]:
        raise BadInput(f"no system '{unknown[0]}'; choose from {', '.join(SYSTEMS)}")
    if wrong := [key for key in WORKFLOWS if not isinstance((options or {}).get(key, {}), Mapping)]:
        raise BadInput(f"--options: '{wrong[0]}' is a workflow, whose ids belong in braces (docs/systems.md)")
    _check_steps(plane_steps, volume_steps, steps)
    study = Study(output, dataset_dir)
    plan = _Plan(EXPERIMENTS[name].task, study.folder, {"train_2d": plane_steps, "train_3d": volume_steps}, options or {})
    stages = {system: plan.stages(system, steps) for system in chosen}
    study.check({stage.folder: stage for several in stages.values() for stage in several}.values())
    for number, system in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {system}", flush=True)
        for stage in stages[system]:
            study.run(stage)
    tables([str(study.folder / "systems")], output=str(study.folder / "tables.md"))
    print(study.folder / "tables.md")


def _check_steps(plane_steps: int, volume_steps: int, steps: Sequence[int]) -> None:
    """Raise BadInput for what would fail after hours of training, and for a budget of which a part would not be trained."""
    if fewer := [count for count in steps if count < 1]:
        raise BadInput(f"--steps {fewer[0]}: a sampler needs at least 1 step")
    for option, budget in (("--plane-steps", plane_steps), ("--volume-steps", volume_steps)):
        if budget < 1:
            raise BadInput(f"{option} {budget}: a training needs at least 1 step")
        if budget > STEPS_PER_EPOCH and (rest := budget % STEPS_PER_EPOCH):
            fact = f"trainings are of whole epochs of {STEPS_PER_EPOCH} steps"
            raise BadInput(f"{option} {budget}: {fact}; give {budget - rest} or {budget - rest + STEPS_PER_EPOCH}")


def steps_of(system: System, asked: Sequence[int]) -> list[int]:
    """The numbers of sampler steps that a system is evaluated with."""
    if system.steps == ONCE:
        return [1]
    return [count for count in asked if count > 1 or system.steps != SEVERAL]


def trainings_of(weights: str) -> list[str]:
    """All trainings that weights or a group of planes rest on, in the order in which they can be trained."""
    if weights in GROUPS:
        return list(GROUPS[weights])
    below = [name for other in (TRAININGS[weights].members, TRAININGS[weights].start) if other for name in trainings_of(other)]
    return list(dict.fromkeys([*below, weights]))


class _Plan(NamedTuple):
    """Trainings and evaluations of an experiment as stages of a study. budget: steps by workflow; given: `options`."""

    task: str
    folder: Path
    budget: Mapping[str, int]
    given: Mapping[str, Any]

    def stages(self, system: str, steps: Sequence[int]) -> list[Stage]:
        """All that a system needs, in order."""
        trainings = map(self.training, trainings_of(SYSTEMS[system].weights))
        return [*trainings, *(self.evaluation(system, count) for count in steps_of(SYSTEMS[system], steps))]

    def training(self, name: str) -> Stage:
        """One training."""
        training = TRAININGS[name]
        steps = max(round(training.share * self.budget[training.workflow]), 1)
        length = {"steps_per_epoch": min(STEPS_PER_EPOCH, steps), "max_epochs": max(steps // STEPS_PER_EPOCH, 1)}
        never = {"val_interval": 10**6}  # validation is for choosing, and nothing is chosen here
        stage = self._stage(training.workflow, training, name, {**length, **never})
        members = {"plane_weights": self._file(PATTERNS[training.members])} if training.members else {}
        start = {"fusion_weights": self._file(training.start)} if training.start else {}
        places = {"cache_dir": self.folder / "cache", **members, **start}
        weights = {below: file for below, file in stage.weights.items() if below != name}
        return stage._replace(folder=f"trainings/{name}", weights=weights, told=lambda: places)

    def evaluation(self, name: str, steps: int) -> Stage:
        """One row of the results."""
        once = {"steps": steps, "orientations": 1}  # which several steps and planes asked one by one are bound to
        stage = self._stage("evaluate", SYSTEMS[name], SYSTEMS[name].weights, once)
        return stage._replace(folder=f"systems/{name}_{steps}", told=partial(self._told, name))

    def _told(self, name: str) -> dict[str, Any]:
        """What a system runs with, and what its results tell of its trainings: the days, and whether they saw full volumes."""
        system, weights = SYSTEMS[name], self._file(SYSTEMS[name].weights)
        used, volumes = trainings_of(system.weights), None
        if system.weights in GROUPS:  # one file of all planes
            weights = weights.parent.with_suffix(".pt")
            export_weights(str(self._file(PATTERNS[system.weights])), str(weights), overwrite=True)
        elif system.options.get("fusion") is not False:
            volumes = TRAININGS[system.weights].volumes
        elif TRAININGS[system.weights].members:
            used.remove(system.weights)  # of a fusion's file the planes alone
        days = sum(float(read(self._file(training))["seconds"]) for training in used) / 86400
        return {"ckpt_path": weights, "system#name": name, "system#training_days": days, "system#volumes": volumes}

    def _stage(self, workflow: str, line: Training | System, weights: str, own: Mapping[str, Any]) -> Stage:
        """With what was given for all workflows and for this one, and what the experiment sets: no key is in both.

        What a line sets to None it has not, whatever the others are given: full volumes have no size of patches.
        """
        given = {key: value for key, value in self.given.items() if key not in WORKFLOWS} | self.given.get(workflow, {})
        own = {**line.options, **own}
        if fixed := [key for key in given if own.get(key) is not None or key in PLACES]:
            raise BadInput(f"--options: '{fixed[0]}' of {workflow} is for the experiment to set; leave it out")
        if weights in TRAININGS and TRAININGS[weights].small:
            own["size"] = SMALLER[given.get("size", "compact")]
        files = {training: self._file(training) for training in trainings_of(weights)}
        return Stage("", workflow, [self.task, *line.overlays.split()], {**given, **own}, files)

    def _file(self, training: str) -> Path:
        """The weights of a training, or of several whose names a pattern gives."""
        return self.folder / "trainings" / training / "latest.pt"
