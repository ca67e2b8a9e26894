# SPDX-License-Identifier: Apache-2.0
"""Results of evaluations as rows of a table need them: read, checked, sorted by task, named."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.identifiers import check_same_studies
from ..errors import BadInput
from ..files import read_json
from ..measurement import Task
from ..measurement.task import KINDS
from .published import names_of

RESULTS, DOWNSTREAM = "results.json", "downstream.json"
CONFIGS = {RESULTS: "configs/evaluate.yaml", DOWNSTREAM: "configs/evaluate_downstream.yaml"}
METHODS = {  # planes, whether slabs of them -> the paper's name
    (1, False): "Palette", (1, True): "Palette-2.5D", (2, False): "TPDM", (3, False): "TOSM", (3, True): "MADM"
}  # fmt: skip


class Result(NamedTuple):
    """One results.json, with a name that no other of its task has. published: the paper's names of the task, if any."""

    path: Path
    name: str
    task: Task
    content: Mapping[str, Any]
    published: tuple[str, ...] = ()

    @property
    def system(self) -> Mapping[str, Any]:
        """What tells it from others."""
        return self.content["system"]

    @property
    def cases(self) -> Mapping[str, Mapping[str, Any]]:
        """Metrics of every case that did not fail."""
        return self.content["cases"]

    @property
    def failures(self) -> Mapping[str, str]:
        """Why a case failed."""
        return self.content.get("failures") or {}

    def values(self, metric: str) -> dict[str, float]:
        """A metric of the cases in which it is defined."""
        found = {case: number(metrics.get(metric)) for case, metrics in self.cases.items()}
        return {case: value for case, value in found.items() if value is not None}


def check_same_cases(first: Result, second: Result) -> None:
    """Raise BadInput when a case of both is not one study's, or has another truth: names are given anew in every data set."""
    shared = first.cases.keys() & second.cases.keys()
    check_same_studies(first.path.parent, second.path.parent, shared)
    ours, theirs = (result.content.get("truths") or {} for result in (first, second))
    if others := sorted(case for case in shared & ours.keys() & theirs.keys() if ours[case] != theirs[case]):
        fact = f"case {others[0]} has another truth than in {first.path}"
        raise BadInput(f"{second.path}: {fact}; compare results of the same data")


# Reading


def load_results(paths: Sequence[str]) -> list[Result]:
    """The results in files and, searched to the bottom, in folders; tasks in order, each file once, names unique."""
    results = sorted(map(_result, files(paths, RESULTS)), key=lambda result: (KINDS.index(result.task.kind), result.task.title))
    for detail in (_difference, place):
        results = extended(results, detail)
    return results


def files(paths: Sequence[str], name: str) -> list[Path]:
    """The files given and those of a name in the folders given, each once."""
    return list(dict.fromkeys(file.resolve() for path in paths for file in _files(Path(path).expanduser(), name)))


def _files(path: Path, name: str) -> list[Path]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder; give {name} of an evaluation or a folder above it")
    found = sorted(path.rglob(name)) if path.is_dir() else [path]
    if not found:
        raise BadInput(f"{path}: holds no {name}; run an evaluation first ({CONFIGS[name]})")
    return found


def _result(path: Path) -> Result:
    content = read(path, RESULTS)
    task = Task.of(content)
    return Result(path, name_of(content["system"], task) or path.parent.name, task, content, names_of(task))


def read(path: Path, name: str) -> dict[str, Any]:
    """The content of a file of this name. Raises BadInput when it is none, or when no case was measured."""
    way_out = f"give {name} of an evaluation"
    content = read_json(path, way_out)
    if not _mappings(content.get("system"), content.get("cases")):
        raise BadInput(f"{path}: not a file of results, it lacks 'system' or 'cases'; {way_out}")
    if ("recovery" in content) != (name == DOWNSTREAM):
        raise BadInput(f"{path}: this is not what the table is made of; {way_out}")
    if not content["cases"]:
        failed = len(content.get("failures") or {})
        raise BadInput(f"{path}: no case was measured, {failed} failed; mend them and evaluate again, or leave this file out")
    if not _mappings(*content["cases"].values()):
        raise BadInput(f"{path}: not a file of results, a case in it has no metrics; {way_out}")
    return content


def _mappings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def number(value: Any) -> float | None:
    """None for what is no number, or not a finite one."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fits else None


# Names


def name_of(system: Mapping[str, Any], task: Task) -> str:
    """As "learned fusion, coronal + sagittal, 1 NFE"; a name of its own wins; "" when neither name nor planes are told."""
    if system.get("name") or not system.get("planes"):
        return str(system.get("name") or "")
    planes, samples = list(system["planes"]), system.get("samples") or 1
    if len(planes) == 1 and not system.get("fusion"):
        parts = [f"{planes[0]} alone"]
    else:
        parts = ["learned fusion" if system.get("fusion") else "average", " + ".join(planes)]
    parts.append(f"{system['nfe']} NFE" if system.get("nfe") else "")
    parts.append(f"{samples} samples" if samples != 1 else "")
    parts.append("no consistency" if task.measured and system.get("consistency") is False else "")
    return ", ".join(filter(None, parts))


def method_of(system: Mapping[str, Any]) -> str:
    """The method in the paper's words, from planes and fusion; a name of its own wins; "" when the paper has none like it."""
    if system.get("name"):
        return str(system["name"])
    method = METHODS.get((len(system.get("planes") or []), (system.get("slab") or 1) > 1), "")
    if not method or not learned(system):
        return method
    return f"Ours-{method}{'-small' if smaller(system) else ''}"


def learned(system: Mapping[str, Any]) -> bool:
    """Whether planes are fused by a network."""
    return bool(system.get("planes") and system.get("fusion"))


def smaller(system: Mapping[str, Any]) -> bool:
    """Whether this network is the smaller one for the same planes."""
    return str(system.get("size")).endswith("small")


def extended(results: Sequence[Result], detail: Callable[[Result, Sequence[Result]], str]) -> list[Result]:
    """A detail after the names that more than one result of a task has."""

    def extend(result: Result) -> Result:
        rivals = [other for other in results if (other.task, other.name) == (result.task, result.name)]
        more = detail(result, rivals) if len(rivals) > 1 else ""
        return result._replace(name=f"{result.name}, {more}") if more else result

    return [extend(result) for result in results]


def _difference(result: Result, rivals: Sequence[Result]) -> str:
    """The settings that are not the same in all rivals."""
    parts = []
    for key, value in result.system.items():
        differs = any(rival.system.get(key) != value for rival in rivals)
        if differs and not isinstance(value, Mapping):
            parts.append(f"{key} {' + '.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(parts)


def place(result: Result, rivals: Sequence[Result]) -> str:
    """The path as far as it differs."""
    common = os.path.commonpath([rival.path.parent for rival in rivals])
    return result.path.relative_to(common).as_posix().removesuffix(f"/{result.path.name}")
