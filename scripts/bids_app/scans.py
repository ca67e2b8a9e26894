# SPDX-License-Identifier: Apache-2.0
"""The scans of a BIDS data set: whose they are, of which session, suffix and contrast."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ..data.bids import entities, filter_for, fitting
from ..data.formats import stem
from ..data.layouts import component, named_entities, place_of
from ..errors import BadInput, listed
from ..files import read_json

logger = logging.getLogger(__name__)

DESCRIPTION = "dataset_description.json"
NIFTI = (".nii", ".nii.gz")
FOLDERS = ("sub-*/anat", "sub-*/ses-*/anat")
MOST = 20  # names in an error


class Scan(NamedTuple):
    """A file below `root`, as root/sub-01/ses-a/anat/sub-01_ses-a_acq-x_T1w.nii.gz, and its contrast in our words, as t1."""

    root: Path
    path: Path
    contrast: str

    @property
    def name(self) -> str:
        """As sub-01_ses-a_acq-x_T1w."""
        return stem(self.path)

    @property
    def suffix(self) -> str:
        """As T1w."""
        return self.name.rpartition("_")[2]

    @property
    def owner(self) -> tuple[str, str]:
        """Labels of participant and session, as ("01", "a") or ("01", "")."""
        given = entities(self.path)
        return given.get("sub", ""), given.get("ses", "")


def described(bids_dir: str | Path, *, skip: bool = False) -> dict[str, Any]:
    """What a data set says of itself. skip: it may say nothing. Raises BadInput for a folder that is no BIDS data set."""
    root = Path(bids_dir).expanduser()
    if not root.is_dir():
        raise BadInput(f"{bids_dir}: there is no such folder; give a BIDS data set")
    if not any(root.glob("sub-*/")):
        raise BadInput(f"{bids_dir}: is no BIDS data set: it holds no sub-LABEL; `score-fusion restore` takes any folder")
    there = (root / DESCRIPTION).is_file()
    content = read_json(root / DESCRIPTION, "mend it") if there else {}
    lacks = [key for key in ("Name", "BIDSVersion") if not content.get(key)]
    if lacks and not skip:
        fact = f"has no {' and '.join(lacks)}" if there else "is missing, so this is no BIDS data set"
        raise BadInput(f"{root / DESCRIPTION}: {fact}; mend it, or add --skip-bids-validation")
    return content


def find_scans(
    root: Path, modality: str, *, participants: Sequence[str] = (), sessions: Sequence[str] = (),
    bids_filter: Mapping[str, Any] | None = None,
) -> list[Scan]:  # fmt: skip
    """Scans with the suffix `modality`, in order. participants, sessions: labels, with or without sub- and ses-; none are all.

    bids_filter: as for `find_cases`, within a session. Raises BadInput that lists what there is where nothing fits.
    """
    _check(root, "participant", "sub-", participants, {path.name for path in root.glob("sub-*/")})
    _check(root, "session", "ses-", sessions, {path.name for path in root.glob("sub-*/ses-*/")})
    everything = choose(_everything(root), participants=participants, sessions=sessions)
    scans = [scan for scan in everything if not component(scan.path, named_entities(bids_filter))]
    found = choose(scans, modality)
    if left := [scan.path.name for scan in choose([scan for scan in everything if scan not in scans], modality)]:
        remedy = "name part or desc in --bids-filter for these"
        logger.warning("%s: left out what is no scan by its name: %s; %s", root, listed(left, most=MOST), remedy)
    if not (chosen := choose(found, bids_filter=bids_filter)):
        counts = Counter(scan.suffix for scan in scans)
        seen = listed([f"{suffix} ({count})" for suffix, count in sorted(counts.items())], most=MOST) or "no scan in anat"
        what = f"no {modality} that the filter chooses" if found else f"no {modality}"
        raise BadInput(f"{root}: {what} of these participants and sessions; there is {seen}; choose with --modality")
    return chosen


def choose(
    scans: Sequence[Scan], modality: str | None = None, *, participants: Sequence[str] = (), sessions: Sequence[str] = (),
    bids_filter: Mapping[str, Any] | None = None,
) -> list[Scan]:  # fmt: skip
    """Some of the scans, in their order; arguments as for `find_scans`, without a modality all, and none where nothing fits."""
    people, times = _labels("sub-", participants), _labels("ses-", sessions)
    chosen = [scan for scan in scans if (not people or scan.owner[0] in people) and (not times or scan.owner[1] in times)]
    chosen = [scan for scan in chosen if modality is None or scan.suffix.lower() == modality.lower()]
    return chosen if bids_filter is None else _filtered(chosen, bids_filter)


def _everything(root: Path) -> list[Scan]:
    """Whatever lies in a folder anat under a name of BIDS, links that lead nowhere too."""
    paths = sorted(path for folder in FOLDERS for path in root.glob(f"{folder}/sub-*_*"))
    places = [(path, place_of(path, root)) for path in paths if path.name.endswith(NIFTI)]
    return [Scan(root, path, place[1]) for path, place in places if place is not None]


def _labels(prefix: str, given: Iterable[str]) -> list[str]:
    return [label.removeprefix(prefix) for label in given]


def _check(root: Path, what: str, prefix: str, given: Sequence[str], there: set[str]) -> None:
    """Raise BadInput for a label that is not there."""
    known = sorted(_labels(prefix, there))
    if missing := [label for label in _labels(prefix, given) if label not in known]:
        seen = f"there are {listed(known, most=MOST)}" if known else f"there is no {what} at all"
        raise BadInput(f"{what} {missing[0]}: is not in {root}; {seen}")


def _filtered(scans: Sequence[Scan], bids_filter: Mapping[str, Any]) -> list[Scan]:
    chosen: list[Scan] = []
    rivals = sorted(scans, key=lambda scan: (scan.owner, scan.contrast))
    for _, group in groupby(rivals, key=lambda scan: (scan.owner, scan.contrast)):
        own = list(group)
        kept = fitting([entities(scan.path) for scan in own], filter_for(bids_filter, own[0].contrast))
        chosen += [own[index] for index in kept]
    return [scan for scan in scans if scan in chosen]
