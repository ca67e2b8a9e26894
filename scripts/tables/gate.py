# SPDX-License-Identifier: Apache-2.0
"""Whether a network is worth its name: above everything that needs none, case by case."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import BadInput, listed
from ..files import read_json
from .columns import INTERVAL, PSNR, PSNR_FITTED, N
from .comparison import Pairing
from .formats import Cell, Column, Row, Table, markdown
from .results import Result, check_same_cases, load_results
from .significance import FEWEST, bootstrap_interval

METRICS = (PSNR, PSNR_FITTED)
RIVALS = "rivals.json"  # of `floors`: the folders of its rivals, before the first is measured
BELOW = 3  # exit code; 1 is bad input, 2 a wrong command line
COLUMNS = (
    Column("rival", "above"), *(Column(metric.key, f"{metric.title}, difference", "+.2f", INTERVAL) for metric in METRICS), N
)  # fmt: skip


def gate(results: str, floors: str) -> None:
    """Print by how much results lie above each floor, and whether they pass; raises SystemExit(3) where they do not.

    results: results.json of an evaluation, or its folder; floors: the folder that `floors` left. They pass when the 95 %
    bootstrap interval of the mean difference, paired by case, lies above 0 for every floor, in PSNR and after one gain and
    offset per case. Raises BadInput when the cases or tasks are not the same, or fewer than three, or a floor is missing.
    """
    ours, rivals = _one(results), load_results([floors])
    _check_whole(floors, rivals)
    for rival in rivals:
        _check(ours, rival)
    pairs = {rival.name: {metric.key: _difference(ours, rival, metric) for metric in METRICS} for rival in rivals}
    rows = [
        Row(ours.task.title, {"rival": Cell(name), **differences, N.key: Cell(len(ours.cases))})
        for name, differences in pairs.items()
    ]
    print(markdown(Table(f"{ours.name} minus what needs no network. Mean over cases, 95 % bootstrap interval.", COLUMNS, rows)))
    below = [
        f"{name} in {metric.title}" for name, cells in pairs.items() for metric in METRICS if not _above(cells[metric.key])
    ]
    if below:
        print(f"{ours.task.title}: does not pass, not above {listed(below)}")
        raise SystemExit(BELOW)
    print(f"{ours.task.title}: passes, above all {len(rivals)} floors")


def _one(path: str) -> Result:
    found = load_results([path])
    if len(found) > 1:
        raise BadInput(f"{path}: holds {len(found)} results; give that of a single evaluation")
    return found[0]


def _check_whole(floors: str, rivals: Sequence[Result]) -> None:
    """Raise BadInput where a rival has no results: who stopped `floors` would lower the bar."""
    folder = Path(floors).expanduser().resolve()
    if not (folder / RIVALS).is_file():  # results of somebody's own
        return
    there = {result.path.parent for result in rivals}
    rivals_of = read_json(folder / RIVALS, "run floors again").get("rivals", [])
    if missing := [name for name in rivals_of if folder / name not in there]:
        raise BadInput(f"{floors}: lacks the results of {listed(missing)}; run floors again, to its end")


def _check(ours: Result, rival: Result) -> None:
    if ours.task != rival.task:
        raise BadInput(f"{rival.path}: is of another task ({rival.task.title}); run floors for {ours.task.title}")
    check_same_cases(ours, rival)
    for metric in METRICS:
        mine, theirs = (set(result.values(metric.key)) for result in (ours, rival))
        if mine != theirs:
            fact = f"{metric.title} is there for {len(mine)} cases of the results and {len(theirs)} of this floor"
            raise BadInput(f"{rival.path}: {fact}; measure both on the same cases with this version")
        if len(mine) < FEWEST:
            raise BadInput(f"{ours.path}: {metric.title} of {len(mine)} cases says nothing; measure at least {FEWEST}")


def _difference(ours: Result, rival: Result, metric: Column) -> Cell:
    differences = Pairing(ours, rival, metric).differences()
    return Cell(float(np.mean(differences)), bootstrap_interval(differences))


def _above(difference: Cell) -> bool:
    return difference.spread[0] > 0
