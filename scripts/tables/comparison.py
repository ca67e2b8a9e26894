# SPDX-License-Identifier: Apache-2.0
"""Paired tests between systems that restored the same cases."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..errors import BadInput
from .columns import PSNR, SSIM, N
from .formats import Cell, Column, Row, Table
from .results import Result, check_same_cases
from .significance import FEWEST_TO_TEST, Numbers, holm, wilcoxon_p

TESTS = (
    Column("first", "first"), Column("second", "second"), Column("metric", "metric"), N,
    Column("median_difference", "median of first - second", "+.3g"),
    Column("p", "p", ".2g"), Column("p_holm", "p (Holm)", ".2g"),
)  # fmt: skip
ALONE = "not compared: of its task there is no other system here"


def comparison(results: Sequence[Result]) -> Table:
    """A paired test for every two systems of a task, in PSNR and in SSIM; who has no other of its task gets a row that says so.

    Raises BadInput when there are no two.
    """
    pairs = [pair for pair in combinations(results, 2) if pair[0].task == pair[1].task]
    if not pairs:
        raise BadInput(f"--compare: no two of the {len(results)} systems given share a task; give results of one task")
    for first, second in pairs:
        check_same_cases(first, second)
    pairings = [Pairing(*pair, metric) for pair in pairs for metric in (PSNR, SSIM)]
    p_values = [wilcoxon_p(pairing.differences()) for pairing in pairings]
    rows = [_tested(*each) for each in zip(pairings, p_values, holm(p_values), strict=True)]
    tests = sum(p is not None for p in p_values)
    paired = {result.path for pair in pairs for result in pair}
    alone = [
        Row(result.task.title, {"first": Cell(result.name, notes=(ALONE,))}) for result in results if result.path not in paired
    ]
    return Table(f"Paired Wilcoxon signed-rank tests, two-sided; Holm correction over {tests} tests.", TESTS, [*rows, *alone])


class Pairing(NamedTuple):
    """Two systems, seen through one metric."""

    first: Result
    second: Result
    metric: Column

    def differences(self) -> Numbers:
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
