# SPDX-License-Identifier: Apache-2.0
"""Tables of results: one row a system with bootstrap intervals, the paper's row beside it, and paired tests."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadInput
from .published import PUBLISHED, PUBLISHED_MINUTES, PUBLISHED_N, PUBLISHED_NOTE, Published
from .significance import FEWEST, FEWEST_TO_TEST, RESAMPLES, bootstrap_interval, holm, wilcoxon_p
from .table_formats import FORMATS, Cell, Column, Row, Table

KINDS = ("super-resolution", "thick slice", "translation", "both", "unknown task")
INTERVAL, ERROR = ("low", "high"), ("standard_error",)


class Task(NamedTuple):
    """What was asked of a system. published: the paper's name of the task, "" when it has none like it."""

    kind: str
    title: str
    published: str = ""


METRICS = {
    "psnr": Column("psnr", "PSNR (dB)", ".2f", INTERVAL),
    "ssim": Column("ssim", "SSIM", ".3f", INTERVAL),
    "psnr_foreground": Column("psnr_foreground", "PSNR foreground (dB)", ".2f", INTERVAL),
    "ssim_foreground": Column("ssim_foreground", "SSIM foreground", ".3f", INTERVAL),
}
POOLED = {  # of all cases together: column -> where its value stands in the file
    Column("mmd", "MMD", ".1f"): ("mmd", "value"),
    Column("mmd_bias", "MMD bias", ".1f"): ("mmd", "bias"),
    Column("fid", "FID", ".1f", ERROR): ("fid", "value"),
    Column("kid", "KID", ".4f", ERROR): ("kid", "value"),
}
NAME, NFE, SECONDS, N = (
    Column("system", "system"), Column("nfe", "NFE", ".0f"),
    Column("seconds", "seconds a volume", ".1f"), Column("n", "n", ".0f"),
)  # fmt: skip
TESTS = (
    Column("first", "first"), Column("second", "second"), Column("metric", "metric"), N,
    Column("median_difference", "median of first - second", "+.3g"),
    Column("p", "p", ".2g"), Column("p_holm", "p (Holm)", ".2g"),
)  # fmt: skip


class Result(NamedTuple):
    """One results.json, with a name that no other of its task has."""

    path: Path
    name: str
    task: Task
    content: Mapping[str, Any]

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
        numbers = {case: _number(found.get(metric)) for case, found in self.cases.items()}
        return {case: number for case, number in numbers.items() if number is not None}


def tables(results: Sequence[str], *, form: str = "markdown", output: str | None = None, compare: bool = False) -> None:
    """Print a table of systems, or write it to a file.

    results: results.json files, or folders that hold them; form: "markdown", "csv" or "latex"; compare: paired tests between
    the systems of a task instead of their means. Raises BadInput for what is missing, unreadable, empty or unknown.
    """
    if form not in FORMATS:
        raise BadInput(f"no format '{form}'; choose from {', '.join(FORMATS)}")
    loaded = load_results(results)
    text = FORMATS[form](comparison(loaded) if compare else overview(loaded))
    if output is None:
        print(text)
    else:
        _write(Path(output).expanduser(), text, kept=[result.path for result in loaded])


def _write(path: Path, text: str, kept: Sequence[Path]) -> None:
    if path.resolve() in kept:
        raise BadInput(f"{path}: this is one of the results; give --output another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); give --output another name") from error


# Reading


def load_results(paths: Sequence[str]) -> list[Result]:
    """The results in files and, searched to the bottom, in folders; tasks in order, each file once, names unique."""
    files = dict.fromkeys(file.resolve() for path in paths for file in _files(Path(path).expanduser()))
    results = sorted(map(_result, files), key=lambda result: (KINDS.index(result.task.kind), result.task))
    for detail in (_difference, _place):
        results = _extended(results, detail)
    return results


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder; give results.json of an evaluation or a folder above it")
    found = sorted(path.rglob("results.json")) if path.is_dir() else [path]
    if not found:
        raise BadInput(f"{path}: holds no results.json; run an evaluation first (configs/evaluate.yaml)")
    return found


def _result(path: Path) -> Result:
    content = _read(path)
    system = content["system"]
    return Result(path, name_of(system) or path.parent.name, task_of(system), content)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON; give results.json of an evaluation") from error
    if not isinstance(content, dict) or not _mappings(content.get("system"), content.get("cases")):
        raise BadInput(f"{path}: not a file of results, it lacks 'system' or 'cases'; give results.json of an evaluation")
    if not content["cases"]:
        failed = len(content.get("failures") or {})
        raise BadInput(f"{path}: no case was measured, {failed} failed; mend them and evaluate again, or leave this file out")
    if not _mappings(*content["cases"].values()):
        raise BadInput(f"{path}: not a file of results, a case in it has no metrics; give results.json of an evaluation")
    return content


def _mappings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _number(value: Any) -> float | None:
    """None for what is no number, or not a finite one."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fits else None


# Names


def task_of(system: Mapping[str, Any]) -> Task:
    """The task from conditions, target and block."""
    conditions, target = list(system.get("conditions") or []), system.get("target")
    block = list(system.get("block") or [])
    size = "x".join(map(str, block))
    if not conditions or not target:
        return Task(KINDS[-1], KINDS[-1])
    if target not in conditions:
        same = (conditions, target) == (["t1ce"], "flair")
        return Task("translation", f"translation {' + '.join(conditions)} -> {target}", "translation" if same else "")
    paper = block == [4, 4, 4]
    if others := [condition for condition in conditions if condition != target]:
        published = "both" if paper and (others, target) == (["t1ce"], "flair") else ""
        return Task("both", f"both {target} {size} + {' + '.join(others)} -> {target}", published)
    if sum(factor > 1 for factor in block) == 1:
        return Task("thick slice", f"thick slice {size} of {target}")
    return Task("super-resolution", f"super-resolution {size} of {target}", "super-resolution" if paper else "")


def name_of(system: Mapping[str, Any]) -> str:
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
    measured = system.get("target") in (system.get("conditions") or [])  # else there is nothing to be consistent with
    parts.append("no consistency" if measured and system.get("consistency") is False else "")
    return ", ".join(filter(None, parts))


def _extended(results: Sequence[Result], detail: Callable[[Result, Sequence[Result]], str]) -> list[Result]:
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


def _place(result: Result, rivals: Sequence[Result]) -> str:
    """The path as far as it differs."""
    common = os.path.commonpath([rival.path.parent for rival in rivals])
    return result.path.relative_to(common).as_posix().removesuffix("/results.json")


# The two tables


def overview(results: Sequence[Result]) -> Table:
    """A row for every result, the paper's of the same method below; columns that no row fills are left out."""
    metrics = {**METRICS, **_further_metrics(results)}
    rows = list(_rows(results, metrics))
    first, second, *others = metrics.values()
    columns = (NAME, first, second, *POOLED, *others, NFE, SECONDS, N)
    filled = {key for row in rows for key, cell in row.cells.items() if cell != Cell()}
    caption = f"Mean over cases (95 % bootstrap interval, {RESAMPLES} draws). MMD falls with 1/n, its bias does not."
    return Table(caption, [column for column in columns if column.key in filled], rows)


def _further_metrics(results: Sequence[Result]) -> dict[str, Column]:
    """Whatever else was measured in cases; too much for a page, so in CSV only."""
    found = (item for result in results for case in result.cases.values() for item in case.items())
    keys = dict.fromkeys(key for key, value in found if value is None or _number(value) is not None)
    known = {*METRICS, SECONDS.key}
    return {key: Column(key, key.replace("_", " "), ".4g", INTERVAL, csv_only=True) for key in keys if key not in known}


def _rows(results: Sequence[Result], metrics: Mapping[str, Column]) -> Iterator[Row]:
    matches = [(result.task, published_like(result)) for result in results]
    for index, (result, match) in enumerate(zip(results, matches, strict=True)):
        yield Row(result.task.title, _cells(result, metrics))
        if match[1] and match not in matches[index + 1 :]:
            yield Row(result.task.title, _published_cells(match[1]))


def _cells(result: Result, metrics: Mapping[str, Column]) -> dict[str, Cell]:
    cells = {"system": Cell(result.name), "nfe": Cell(_number(result.system.get("nfe")))}
    cells |= {column.key: _mean(result, column) for column in (*metrics.values(), SECONDS)}
    cells |= {column.key: _pooled(result, column, *place) for column, place in POOLED.items()}
    return cells | {"n": Cell(len(result.cases), notes=_failure_notes(result))}


def _mean(result: Result, column: Column) -> Cell:
    """The mean where the metric is defined; where it is not, and where too few cases are, a note says so."""
    if not any(column.key in case for case in result.cases.values()):
        return Cell()
    values, notes = result.values(column.key), []
    if undefined := [case for case in result.cases if case not in values]:
        which = f"{len(undefined)} of {len(result.cases)} cases: {_listed(undefined)}"
        notes.append(f"{column.title} is undefined and left out of the mean in {which}")
    if column.spread and len(values) < FEWEST:
        notes.append(f"no interval from fewer than {FEWEST} cases")
    spread = bootstrap_interval(list(values.values())) if column.spread and len(values) >= FEWEST else ()
    return Cell(float(np.mean(list(values.values()))) if values else None, spread, tuple(notes))


def _pooled(result: Result, column: Column, key: str, field: str) -> Cell:
    """A number of all cases together, with a note on the cases and features it is from when the row does not say so."""
    entry = result.content.get(key)
    if not isinstance(entry, Mapping) or entry.get("n") == 0:  # not asked for
        return Cell()
    n, value = entry.get("n", len(result.cases)), _number(entry.get(field))
    error = _number(entry.get(ERROR[0])) if column.spread else None
    notes = [f"{column.title} is from n = {n}"] if n != len(result.cases) else []
    notes += [f"{column.title} is undefined for n = {n}"] if value is None else []
    notes += [f"{column.title} from features of {entry['features']}"] if entry.get("features") else []
    return Cell(value, () if error is None else (error,), tuple(notes))


def _failure_notes(result: Result) -> tuple[str, ...]:
    if not result.failures:
        return ()
    told = [str(line) if case in str(line) else f"{case}: {line}" for case, line in result.failures.items()]
    total = len({*result.cases, *result.failures})
    return (f"{len(told)} of {total} cases failed, left out of every mean: {_listed(told)}",)


def _listed(items: Sequence[str], most: int = 5) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "; ".join([*items[:most], *more])


def published_like(result: Result) -> Published | None:
    """The paper's row of the same task and method, if it has one. A system with a name of its own is that method alone."""
    planes, learned = len(result.system.get("planes") or []), result.system.get("fusion")
    if planes == 1:
        method = "Palette 2D"
    else:
        ensemble = {2: "TPDM", 3: "MADM" if (result.system.get("slab") or 1) > 1 else "TOSM"}.get(planes, "")
        method = f"learned fusion on {ensemble}" if learned else f"{ensemble} (average)"
    asked = (result.system.get("name") or method, result.task.published)
    return next((row for row in PUBLISHED if (row.method, row.task) == asked), None)


def _published_cells(row: Published) -> dict[str, Cell]:
    minutes = PUBLISHED_MINUTES.get(row.method)
    name = f"{row.method} (paper, BraTS 2021, n = {PUBLISHED_N})"
    numbers = {"psnr": row.psnr, "ssim": row.ssim, "mmd": row.mmd, "fid": row.fid, "n": PUBLISHED_N}
    numbers["seconds"] = None if minutes is None else 60 * minutes
    return {"system": Cell(name, notes=(PUBLISHED_NOTE,)), **{key: Cell(value) for key, value in numbers.items()}}


def comparison(results: Sequence[Result]) -> Table:
    """A paired test for every two systems of a task, in PSNR and in SSIM. Raises BadInput when there are no two."""
    pairs = [pair for pair in combinations(results, 2) if pair[0].task == pair[1].task]
    if not pairs:
        raise BadInput(f"--compare: no two of the {len(results)} systems given share a task; give results of one task")
    pairings = [Pairing(*pair, METRICS[key]) for pair in pairs for key in ("psnr", "ssim")]
    p_values = [wilcoxon_p(pairing.differences()) for pairing in pairings]
    rows = [_tested(*each) for each in zip(pairings, p_values, holm(p_values), strict=True)]
    tests = sum(p is not None for p in p_values)
    return Table(f"Paired Wilcoxon signed-rank tests, two-sided; Holm correction over {tests} tests.", TESTS, rows)


class Pairing(NamedTuple):
    """Two systems, seen through one metric."""

    first: Result
    second: Result
    metric: Column

    def differences(self) -> npt.NDArray[np.float64]:
        """First minus second, for every case in which both are defined."""
        ours, theirs = (result.values(self.metric.key) for result in self[:2])
        return np.array([ours[case] - theirs[case] for case in ours if case in theirs])


def _tested(pairing: Pairing, p: float | None, corrected: float | None) -> Row:
    first, second, metric = pairing
    differences = pairing.differences()
    total = len({*first.cases, *second.cases, *first.failures, *second.failures})
    left_out = f"{total - differences.size} of {total} cases left out: failed, undefined or not measured in one of the two"
    few = np.count_nonzero(differences) < FEWEST_TO_TEST
    told = f"with fewer than {FEWEST_TO_TEST} shared cases that differ, the test cannot reach 5 %"
    cells = {
        "first": Cell(first.name),
        "second": Cell(second.name),
        "metric": Cell(metric.title),
        "n": Cell(differences.size, notes=(left_out,) if differences.size < total else ()),
        "median_difference": Cell(float(np.median(differences)) if differences.size else None),
        "p": Cell(p, notes=(told,) if few else ()),
        "p_holm": Cell(corrected),
    }
    return Row(first.task.title, cells)
