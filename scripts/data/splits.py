# SPDX-License-Identifier: Apache-2.0
"""Which cases train and which validate: subjects are split, not scans."""

import csv
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import BadInput, listed

logger = logging.getLogger(__name__)

SUBJECT = re.compile(r"sub-[^_]+(?=_ses-)|BraTS-[A-Za-z]+-\d+(?=-\d+$)")
MOST = 20  # cases that a line names


def subject_of(case: str) -> str:
    """Whose case it is: sessions of BIDS and time points of BraTS 2023 belong to one subject."""
    match = SUBJECT.match(case)
    return match.group() if match else case


class Split(NamedTuple):
    """Which cases are asked for: by the folder's own `splits.csv`, else by their place in the alphabet."""

    root: Path
    name: str
    train_fraction: float

    def take(self, cases: Iterable[str], subjects: Mapping[str, str] | None = None) -> list[str]:
        """The cases of this split, sorted; all modalities' cases go in, so that every task splits alike.

        subjects: whose the cases are, where their names do not tell (`subject_of`).
        """
        everyone = sorted(cases)
        subjects = {case: subject_of(case) for case in everyone} | dict(subjects or {})
        if self.name == "all":
            return everyone
        table = self.root / "splits.csv"
        names = _by_table(table, subjects) if table.is_file() else _by_fraction(subjects, self.train_fraction)
        taken = [case for case in everyone if names.get(case) == self.name]
        if not taken:
            fact = f"{self.root}: no case of {len(everyone)} is in split {self.name}"
            if table.is_file():
                raise BadInput(f"{fact}; change splits.csv")
            rule = f"the first {100 * self.train_fraction:g} % of the subjects train, the others validate"
            remedy = "write a splits.csv (docs/your_data.md#splits), or take split all (of a training split_train, split_val)"
            raise BadInput(f"{fact}: {rule}; {remedy}")
        return taken


def _by_fraction(subjects: Mapping[str, str], train_fraction: float) -> dict[str, str]:
    everyone = sorted(set(subjects.values()))
    train = set(everyone[: int(len(everyone) * train_fraction + 1e-9)])
    return {case: "train" if subject in train else "val" for case, subject in subjects.items()}


def _by_table(table: Path, subjects: Mapping[str, str]) -> dict[str, str]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or ()
        if len(header) < 2 or "split" not in header:
            raise BadInput(f"{table}: has no column split; give a case or subject in the first column, and its split")
        split_of = {row[header[0]].strip(): (row["split"] or "").strip().lower() for row in reader}
    names = {case: split_of.get(case, split_of.get(subject, "")) for case, subject in subjects.items()}
    unnamed = [case for case, name in names.items() if not name]
    if unnamed:
        logger.warning("%s: names no split for %d cases, left out: %s", table, len(unnamed), listed(unnamed, most=MOST))
    by_subject: dict[str, str] = {}
    for case, name in names.items():
        if name and by_subject.setdefault(subjects[case], name) != name:
            raise BadInput(f"{table}: subject {subjects[case]} is in two splits; put all its cases into one")
    return names
