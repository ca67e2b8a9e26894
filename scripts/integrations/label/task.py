# SPDX-License-Identifier: Apache-2.0
"""A task of the bundle on the studies of a server: its configs, its weights, and the files of a study."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from scripts import bundle_root
from scripts.data import find_cases
from scripts.errors import BadInput
from scripts.limits import limits_of
from scripts.measurement import Task
from scripts.running.workflow import config_file, config_files, task_config

ROOT = Path(bundle_root())


class StudyTask:
    """One of `configs/task_*.yaml` with further overlays.

    name: as `task_config` has it; studies: the server's folder of images; overlays: files of `configs`; weights: instead of the
    shipped ones; runs: folder for what is trained. Raises BadInput when a name is unknown.
    """

    def __init__(
        self, name: str, studies: str, *, overlays: Sequence[str] = (), weights: str | None = None, runs: str | None = None
    ) -> None:
        self.name, self.studies = name, studies
        self.overlays = [task_config(name), *map(config_file, overlays)]
        parser = self.parser("inference", {})
        self.definition: Task = parser.get_parsed_content("task")
        self.planes: list[str] = parser.get_parsed_content("planes")
        self.defaults = {key: parser[key] for key in ("samples", "steps", "seed")}
        self.bundled = Path(parser.get_parsed_content("ckpt_path"))
        self.shipped = Path(weights or self.bundled)
        self.limits = limits_of(self.shipped)
        self.folder = Path(runs or ROOT / "runs" / "label").resolve() / name

    def files(self, workflow: str) -> list[str]:
        """The config files of a workflow, in the order of their precedence."""
        return list(map(str, config_files(workflow, self.overlays)))

    def parser(self, workflow: str, changes: Mapping[str, Any]) -> ConfigParser:
        """The workflow's config with the overlays and then the changes (values by key) in place."""
        parser = ConfigParser()
        parser.read_config(self.files(workflow))
        parser.update(dict(changes))
        return parser

    def trained(self, part: str) -> Path:
        """Where a training leaves the weights of a part: `fusion` (with its planes) or a plane."""
        return self.folder / f"{part}.pt"

    def case_of(self, image: str) -> dict[str, Any]:
        """The case `{case, image: [path per condition]}` that an image belongs to.

        An image from outside the studies stands for itself where one condition is enough. Raises BadInput when it is not
        a condition of this task, or its study lacks another one.
        """
        path, wanted = Path(image).resolve(), " and ".join(self.definition.conditions)
        if Path(self.studies).resolve() not in path.parents:
            if len(self.definition.conditions) == 1:
                return {"image": [str(path)]}
            raise BadInput(f"{path.name}: {self.name} needs {wanted}; put a study's files into --studies")
        for case in find_cases(self.studies, self.definition.conditions):
            if path in [Path(file).resolve() for file in case["image"]]:
                return case
        raise BadInput(f"{path.name}: is not the {wanted} of a complete study; see docs/your_data.md#layouts")


def doubts_of(data: Mapping[str, Any]) -> list[str]:
    """What `restore` would record of a case: of the weights, of its volume and of the numbers that were computed in.

    data: with the `image` as the preprocessing left it, and the `parser` whose inferer answered.
    """
    content = data["parser"].get_parsed_content
    caveat, computed = content("limits").caveat, content("inferer").doubts
    return [*([caveat] if caveat else []), *json.loads(data["image"].meta.get("doubts", "[]")), *computed]


# Anybody who reaches the server may ask, and in a config a text may be code: of a request only what these give gets there.


def numbers_of(request: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, float]:
    """For each default what the request has in its place. Raises BadInput for what is no number of its kind."""
    return {key: _number(key, request.get(key, default), default) for key, default in defaults.items()}


def choice_of(request: Mapping[str, Any], key: str, names: Sequence[str]) -> str:
    """One of the names, the first by default; a client that was not asked sends all of them. Raises BadInput for another."""
    given = request.get(key, names)
    name = given[0] if isinstance(given, list | tuple) and given else given
    if name not in names:
        raise BadInput(f"{key} {name}: is not known; choose of {', '.join(names)}")
    return str(name)


def device_of(name: str) -> torch.device:
    """Raises BadInput for what PyTorch does not know."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device {name}: there is no such device; take cpu or cuda") from error


def _number(key: str, value: Any, default: float) -> float:
    try:
        number = type(default)(value)
        if math.isfinite(number) and float(number) == float(value):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise BadInput(f"{key} {value}: is no {'whole ' * isinstance(default, int)}number; the default is {default}")
