# SPDX-License-Identifier: Apache-2.0
"""Table 2: how much of a tumour is found with the real, the degraded and every synthesised modality."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..evaluation.downstream import DEGRADED, REAL, named_folders
from ..evaluation.downstream_results import recovery
from ..measurement import Task
from ..running.record import record
from .cells import TOO_FEW, Cells, cells, rows_beside
from .columns import INTERVAL, NAME, NFE, N
from .formats import Cell, Column, Row
from .published import BLOCKS, BOTH, DEGRADED_BOUND, MT, PAPER, REAL_BOUND, SR, names_of, same_method
from .results import DOWNSTREAM, Result, extended, files, method_of, number, place, read
from .significance import FEWEST, Numbers, bootstrap_interval

REGIONS = ("TC", "WT", "ET")  # of BraTS, in the order of the paper
POSSIBLE = {BLOCKS: (SR, BOTH), (): (MT,)}  # tasks by blocks when no record tells; two have one degraded form
DICE, SHARE, PERCENT = "dice", "recovery", 100
GONE = "gone"  # of a method: the footnote where nothing is known of the run that made it
NO_LOSS = "no interval of a recovery where degrading cost too few cases any Dice"


def downstream_rows(results: Sequence[Result], *, published: bool = False) -> tuple[list[Column], list[Row]]:
    """Columns and rows of what `load_downstream` gives; published: also the paper's rows without one of ours."""
    measured = (key.split("_", 1) for result in results for case in result.cases.values() for key in case)
    regions = dict.fromkeys([*REGIONS, *(region for kind, region in measured if kind == DICE)])
    shares = [
        Column(f"{kind}_{region}", f"{title} {region} (%)", ".2f", INTERVAL, scale=PERCENT)
        for kind, title in ((DICE, "Dice"), (SHARE, "recovery")) for region in regions
    ]  # fmt: skip
    columns = [NAME, *shares, NFE, N]
    return columns, list(rows_beside(results, columns, PAPER[2], rest=published, with_task=True, told=_cells))


def load_downstream(paths: Sequence[str]) -> list[Result]:
    """A result for every version of the modality in downstream.json files, or in folders that hold them."""
    results = [result for path in files(paths, DOWNSTREAM) for result in _versions(path, read(path, DOWNSTREAM))]
    return extended(results, place)


def _versions(path: Path, content: Mapping[str, Any]) -> Iterator[Result]:
    system, methods = content["system"], content["recovery"]
    replaced = system.get("replaced")
    task = Task.of({**system, "target": replaced, "title": f"{replaced}, degraded: {system.get('degraded')}"})
    possible = POSSIBLE.get(task.blocks, ()) if replaced == "flair" else ()
    names = {REAL: REAL_BOUND if possible else REAL, DEGRADED: DEGRADED_BOUND if SR in possible else DEGRADED}
    told = content["methods"] if "methods" in content else _records(system.get("predictions"))
    records = {**{bound: {"system": {"name": name}} for bound, name in names.items()}, **told}
    for version in (REAL, DEGRADED, *methods):
        run = records.get(version, {})
        of_run, asked = run.get("system", {}), Task.of(run)
        known = names_of(asked) if asked.target else possible
        by_name = any(same_method(version, row.method) for row in PAPER[2].rows) or not method_of(of_run)
        cases = {case: _scores(found, version) for case, found in content["cases"].items()}
        measured = {"cases": cases, "failures": content.get("failures"), GONE: run.get(GONE)}
        yield Result(
            path, version, task, {"system": {**of_run, "name": version} if by_name else of_run, **measured},
            tuple(name for name in known if name in possible),
        )  # fmt: skip


def _records(predictions: Any) -> dict[str, Mapping[str, Any]]:
    """What the runs say of themselves whose results were segmented, by method, for files up to 0.6, which do not say it.

    Of a folder that is not there, seen from here, a line that says so.
    """
    records: dict[str, Mapping[str, Any]] = {}
    for text in [predictions] if isinstance(predictions, str) else predictions or []:
        try:
            [(name, folder)] = named_folders(str(text)).items()
            records[name] = record(folder)
        except BadInput:
            name, _, place = str(text).rpartition("=")
            fact = f"method, task and NFE are not known: {place} is not there, or its record cannot be read"
            records[name or Path(place).name] = {GONE: f"{fact}; run this where it was measured, or measure again"}
    return records


def _scores(case: Mapping[str, Any], version: str) -> dict[str, float | None]:
    """Dice of a version by region, and of the bounds where it lies between them."""
    kinds = {DICE: version} if version in (REAL, DEGRADED) else {DICE: version, DEGRADED: DEGRADED, REAL: REAL}
    return {f"{kind}_{region}": scores["dice"] for kind, name in kinds.items() for region, scores in case[name].items()}


def _cells(result: Result, columns: Sequence[Column]) -> Cells:
    recovered = {column.key: _recovery(result, column) for column in columns if column.key.startswith(SHARE)}
    made = {**cells(result, [column for column in columns if column.key not in recovered]), **recovered}
    if result.content[GONE]:
        made[NAME.key] = made[NAME.key]._replace(notes=(result.content[GONE],))
    return made


def _recovery(result: Result, column: Column) -> Cell:
    """From mean Dice, with an interval of drawn cases; a note where it is not defined."""
    region = column.key.split("_", 1)[1]
    scores = [[number(case.get(f"{kind}_{region}")) for kind in (DICE, DEGRADED, REAL)] for case in result.cases.values()]
    complete = [[value for value in triple if value is not None] for triple in scores if None not in triple]
    if not complete:
        return Cell()
    value = recovery(*np.mean(complete, axis=0).tolist())
    if value is None:
        return Cell(notes=(f"{column.title} is undefined: degrading cost no Dice",))
    if len(complete) < FEWEST:
        return Cell(value, notes=(TOO_FEW,))
    interval = bootstrap_interval(complete, of=_shares)
    return Cell(value, interval) if np.isfinite(interval).all() else Cell(value, notes=(NO_LOSS,))


def _shares(means: Numbers) -> Numbers:
    """Recovery of mean Dice (draws, 3); NaN where nothing was lost."""
    synthesised, degraded, real = means.T
    return (synthesised - degraded) / np.where(real == degraded, np.nan, real - degraded)
