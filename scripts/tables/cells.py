# SPDX-License-Identifier: Apache-2.0
"""What stands in the cells of a table: means with intervals, settings, footnotes, and the paper's numbers beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from .columns import CONSISTENCY, ERROR, FEATURES, FID, KID, MMD, MMD_BIAS, NAME, NFE, PSNR, SMALL, TRAINING, VOLUMES, N
from .formats import Cell, Column, Row
from .published import PaperTable, Published
from .results import Result, learned, method_of, number, smaller
from .significance import FEWEST, bootstrap_interval

POOLED = {  # of all cases together: where the value stands in the file
    MMD.key: ("mmd", "value"), MMD_BIAS.key: ("mmd", "bias"), FID.key: ("fid", "value"), KID.key: ("kid", "value")
}  # fmt: skip
TOO_FEW = f"no interval from fewer than {FEWEST} cases"
FID_NOTE = "published FIDs count in 1e-4 and are from features of MedicalNet; they compare with no others"
NOT_WORKING = "published as not working"
Cells = dict[str, Cell]


# Ours


def cells(result: Result, columns: Sequence[Column]) -> Cells:
    """A row's cells: each from the settings, from a number of all cases together, or else the mean of a metric of the cases."""
    return {column.key: _cell(result, column) for column in columns}


def _cell(result: Result, column: Column) -> Cell:
    if column.key in SETTINGS:
        return SETTINGS[column.key](result)
    return _pooled(result, column, *POOLED[column.key]) if column.key in POOLED else _mean(result, column)


def _mean(result: Result, column: Column) -> Cell:
    """The mean where the metric is defined; where it is not, and where too few cases are, a note says so."""
    if not any(column.key in case for case in result.cases.values()):
        return Cell()
    values, notes = result.values(column.key), []
    if undefined := [case for case in result.cases if case not in values]:
        which = f"{len(undefined)} of {len(result.cases)} cases: {_listed(undefined)}"
        notes.append(f"{column.title} is undefined and left out of the mean in {which}")
    if column.spread and len(values) < FEWEST:
        notes.append(TOO_FEW)
    spread = bootstrap_interval(list(values.values())) if column.spread and len(values) >= FEWEST else ()
    return Cell(float(np.mean(list(values.values()))) if values else None, spread, tuple(notes))


def _pooled(result: Result, column: Column, key: str, field: str) -> Cell:
    """A number of all cases together, with a note on the cases and features it is from when the row does not say so."""
    entry = result.content.get(key)
    if not isinstance(entry, Mapping) or entry.get("n") == 0:  # not asked for
        return Cell()
    n, value = entry.get("n", len(result.cases)), number(entry.get(field))
    error = number(entry.get(ERROR[0])) if column.spread else None
    notes = [f"{column.title} is from n = {n}"] if n != len(result.cases) else []
    notes += [f"{column.title} is undefined for n = {n}"] if value is None else []
    notes += [f"{column.title} from features of {entry['features']}"] if entry.get("features") else []
    return Cell(value, () if error is None else (error,), tuple(notes))


def _count(result: Result) -> Cell:
    """Cases in the means, and which failed and why."""
    if not result.failures:
        return Cell(len(result.cases))
    told = [str(line) if case in str(line) else f"{case}: {line}" for case, line in result.failures.items()]
    total = len({*result.cases, *result.failures})
    return Cell(len(result.cases), notes=(f"{len(told)} of {total} cases failed, left out of every mean: {_listed(told)}",))


def _listed(items: Sequence[str], most: int = 5) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "; ".join([*items[:most], *more])


def _switch(on: bool | None) -> Cell:
    return Cell() if on is None else Cell("yes" if on else "no")


def _of_fusion(result: Result, on: bool | None) -> Cell:
    """A switch of the fusion network; nothing where there is none."""
    return _switch(on) if learned(result.system) else Cell()


SETTINGS: dict[str, Callable[[Result], Cell]] = {
    NAME.key: lambda result: Cell(result.name),
    NFE.key: lambda result: Cell(number(result.system.get("nfe"))),
    N.key: _count,
    TRAINING.key: lambda result: Cell(number(result.system.get(TRAINING.key))),
    SMALL.key: lambda result: _of_fusion(result, smaller(result.system)),
    CONSISTENCY.key: lambda result: _switch(result.system.get("consistency") if result.task.measured else None),
    VOLUMES.key: lambda result: _of_fusion(result, result.system.get(VOLUMES.key)),
    FEATURES.key: lambda result: _of_fusion(result, result.system.get(FEATURES.key)),
}


# The paper's


def rows_beside(
    results: Sequence[Result], columns: Sequence[Column], paper: PaperTable, *, rest: bool = False, with_task: bool = False,
    told: Callable[[Result, Sequence[Column]], Cells] = cells,
) -> Iterator[Row]:  # fmt: skip
    """A row for every result, and the paper's of its method and task below the last one of them.

    rest: also the paper's other rows, in the end; with_task: name the task in the paper's; told: gives the cells of ours.
    """
    matches = [paper.like(method_of(result.system), result.published) for result in results]
    for index, (result, found) in enumerate(zip(results, matches, strict=True), start=1):
        yield Row(result.task.title, told(result, columns))
        later = [match for other, match in zip(results[index:], matches[index:], strict=True) if other.task == result.task]
        for row in found:
            if row not in chain(*later):
                yield Row(result.task.title, _published_cells(row, columns, paper, with_task))
    for row in paper.rows if rest else ():
        if row not in chain(*matches):
            group = ", ".join(filter(None, [row.task, "published only"]))
            yield Row(group, _published_cells(row, columns, paper, with_task))


def _published_cells(row: Published, columns: Sequence[Column], paper: PaperTable, with_task: bool) -> Cells:
    method = f"{row.method}, {row.task}" if with_task and row.task else row.method
    source = f"paper, {paper.data}, n = {paper.n}" if paper.n else f"paper, {paper.data}"
    not_working = row.numbers.get(PSNR.key, 0) is None
    name = Cell(f"{method} ({source})", notes=(paper.note, NOT_WORKING) if not_working else (paper.note,))
    return {**{column.key: _published(row, column) for column in columns}, NAME.key: name, N.key: Cell(paper.n)}


def _published(row: Published, column: Column) -> Cell:
    value = row.numbers.get(column.key)
    if value is None or isinstance(value, str):
        return Cell(value)
    exact = round(value / column.scale, 9)  # no digits that division makes up
    return Cell(exact, notes=(FID_NOTE,) if column == FID else ())
