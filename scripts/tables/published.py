# SPDX-License-Identifier: Apache-2.0
"""The paper's own numbers (Zhu et al. 2025), as published.csv has them; methods have the names of its table 1 in all tables."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..measurement import Task

SR, MT, BOTH = "super-resolution", "translation", "both"  # as `Task.kind` says it
BLOCKS = ((4, 4, 4),)
REAL_BOUND, DEGRADED_BOUND = "GT FLAIR", "Downsampled GT"
SEPARATORS = str.maketrans("", "", "-_. ")


class Published(NamedTuple):
    """A row of the paper. task: "" when it is of any; numbers: by the key of their column, None where it has none."""

    method: str
    task: str
    numbers: dict[str, float | str | None]


class PaperTable(NamedTuple):
    """A table of the paper. data: what it was measured on; note: how to read it beside ours; n: volumes, None when not told."""

    rows: tuple[Published, ...]
    data: str
    note: str
    n: int | None = None

    def like(self, method: str, tasks: Sequence[str]) -> list[Published]:
        """The rows of a method and of any of the tasks."""
        return [row for row in self.rows if same_method(row.method, method) and row.task in ("", *tasks)]


def same_method(one: str, other: str) -> bool:
    """Whether names differ at most in case, hyphens, underscores, dots and spaces, as Palette-2.5D and palette_2_5d."""
    first, second = (name.lower().translate(SEPARATORS) for name in (one, other))
    return first == second


def names_of(task: Task) -> tuple[str, ...]:
    """The paper's names of a task; none when it has none like it."""
    alike = task.blocks == BLOCKS or not task.measured
    if task.kind != SR:
        alike = alike and (task.target, task.others) == ("flair", ("t1ce",))
    return (task.kind,) if alike and task.kind in (SR, MT, BOTH) else ()


def _table(number: int) -> tuple[Published, ...]:
    """Rows as printed, but for times in seconds; keys are the columns in which the table prints anything.

    What is not obvious: Palette-3D is "Not Working" on translation in table 1; the first three methods of table 3, planes of
    one condition each, are its "TPDM", "DiffEnsembler-small" and "DiffEnsembler"; table 4 names none, its are those of
    `python -m scripts experiment ablations`; MACE is in 1e-4; the line before MADM in table 8 says "Ours-MADM", a slip: 40
    days are TOSM's 24 and 16 for the fusion.
    """
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] == str(number)]
    keys = [key for key in list(rows[0])[3:] if any(row[key] for row in rows)]
    return tuple(Published(row["method"], row["task"], dict(_cell(key, row[key]) for key in keys)) for row in rows)


def _cell(key: str, text: str) -> tuple[str, float | str | None]:
    if key == "minutes":
        return "seconds", 60 * float(text)
    return key, text if text in ("yes", "no") else float(text) if text else None


COMPARED, DOWNSTREAM, MODALITIES, ABLATIONS, UNCERTAINTY, HCP, TIMES = map(_table, (1, 2, 3, 4, 5, 6, 8))
SECONDS = {row.method: row.numbers["seconds"] for row in TIMES}
LANDMARK = "so read it as a landmark"
BRATS_NOTE = f"published for FLAIR of BraTS 2021 (times: an A100, diffusion in 50 steps); other data than ours, {LANDMARK}"
HCP_NOTE = f"published for FLAIR of HCP; other data than ours, {LANDMARK}"
TIMES_NOTE = f"published for an A100, diffusion in 50 steps; another machine than ours, {LANDMARK}"
TIMED = tuple(row._replace(numbers={**row.numbers, "seconds": SECONDS.get(row.method)}) for row in COMPARED)
BRATS = {1: TIMED, 2: DOWNSTREAM, 3: MODALITIES, 4: ABLATIONS, 5: UNCERTAINTY}
PAPER = {
    **{number: PaperTable(rows, "BraTS 2021", BRATS_NOTE, 251) for number, rows in BRATS.items()},
    6: PaperTable(HCP, "HCP", HCP_NOTE),
    8: PaperTable(TIMES, "A100", TIMES_NOTE),
}
