# SPDX-License-Identifier: Apache-2.0
"""Who is behind a case from DICOM: pseudonyms for all to see, and one file for its owner that tells whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..files import read_json, write_json
from .dicom import DicomSeries

FILE = "identifiers.json"  # in the folder of the results
HIDDEN = "***"
# Characters of an ID that is looked for in a text, and of one that is a number: "7" may be a slice or a day as well.
SHORTEST, SHORTEST_NUMBER = 2, 4
REMEDY = "put back the file that was there, or write to another folder"


class Identifiers:
    """The file: by pseudonym `case` (the name with patient ID and date), `patient_id`, `study_date`, `study_uid`, and `sources`
    when the case was run. Raises BadInput when it cannot be read.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file).expanduser()
        self.entries: dict[str, Any] = read_json(self.file, REMEDY) if self.file.exists() else {}
        if not all(isinstance(entry, Mapping) and "study_uid" in entry for entry in self.entries.values()):
            raise BadInput(f"{self.file}: is not the list of whose cases lie here; {REMEDY}")

    def names(self, studies: Mapping[str, Sequence[DicomSeries]]) -> dict[str, str]:
        """study-001 and so on for every study by its real name, the same as ever; new ones are written into the file."""
        known = {entry["study_uid"]: name for name, entry in self.entries.items()}
        new = {study[0].study_uid: (real, study[0]) for real, study in studies.items() if study[0].study_uid not in known}
        for number, (uid, (real, first)) in enumerate(new.items(), start=len(known) + 1):
            known[uid] = f"study-{number:03d}"
            who = {"case": real, "patient_id": first.patient_id, "study_date": first.study_date, "study_uid": uid}
            self.entries[known[uid]] = who
        if new:
            write_json(self.file, self.entries, private=True)
        return {real: known[study[0].study_uid] for real, study in studies.items()}

    def keep_sources(self, sources: Mapping[str, Any]) -> dict[str, Any]:
        """Write those of cases that are known here into the file; the others are returned, for a record that all may see."""
        ours = sources.keys() & self.entries.keys()
        for case in ours:
            self.entries[case]["sources"] = sources[case]
        if ours:
            write_json(self.file, self.entries, private=True)
        return {case: source for case, source in sources.items() if case not in ours}

    @property
    def sources(self) -> dict[str, Any]:
        """What `keep_sources` wrote."""
        return {case: entry["sources"] for case, entry in self.entries.items() if "sources" in entry}

    def check_same(self, case: str, study_uid: str) -> None:
        """Raise BadInput when this name is another study's here: numbers are given anew in every folder."""
        if self.entries.get(case, {}).get("study_uid", study_uid) != study_uid:
            raise BadInput(
                f"case {case}: is another study in {self.file.parent}; run both with --keep-ids, or from the same data"
            )


def check_same_studies(first: Path, second: Path, cases: Iterable[str]) -> None:
    """Raise BadInput when a case of two folders of results is not one study's in both."""
    ours, theirs = (Identifiers(folder / FILE) for folder in (first, second))
    for case in cases:
        if "study_uid" in (entry := ours.entries.get(case, {})):
            theirs.check_same(case, entry["study_uid"])


def anonymous(series: DicomSeries, words: Iterable[str]) -> DicomSeries:
    """A series whose faults, which name files, tell no patient and no date."""
    changed: dict[str, Any] = {}
    for key in ("problem", "exclusion", "doubts"):
        value = getattr(series, key, "")
        changed |= (
            {key: hide(value, words) if isinstance(value, str) else tuple(hide(line, words) for line in value)} if value else {}
        )
    return replace(series, **changed)


def hide(text: str, words: Iterable[str]) -> str:
    """Put `HIDDEN` in place of whole words, as in the names of files, whatever stands between their parts."""
    for word in sorted(set(words), key=len, reverse=True):
        parts = re.findall(r"[^\W_]+", word)
        letters = "".join(parts)
        if len(letters) >= (SHORTEST_NUMBER if letters.isdecimal() else SHORTEST):
            pattern = r"[\W_]*".join(map(re.escape, parts))
            text = re.sub(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])", HIDDEN, text, flags=re.IGNORECASE)
    return text


def words_of(studies: Mapping[str, Sequence[DicomSeries]]) -> set[str]:
    """Patient IDs and dates."""
    return {word for study in studies.values() for one in study for word in (one.patient_id, one.study_date)}
