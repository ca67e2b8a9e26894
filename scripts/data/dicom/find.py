# SPDX-License-Identifier: Apache-2.0
"""Which DICOM series a folder, a tree of studies or a zip holds, and what is wrong with each."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...errors import BadInput
from .headers import Header, is_dicom, read_header
from .series import DicomSeries
from .slices import fault, plane_of, spacing_of, volumes

SMALLEST_SIDE = 5  # of a volume, in voxels


class Found(NamedTuple):
    """series: every volume, sound or with a `problem`, sorted by study and number. refused: a line for each bad file."""

    series: list[DicomSeries]
    refused: list[str]


def find_series(root: str | Path) -> Found:
    """All DICOM series below a folder; only headers are read. Copies of an image count once.

    A file that cannot be read may be a slice of any series beside it, so it is a problem of all series in its folder.
    """
    headers: dict[str, Header] = {}
    refused = {}
    for path in dicom_files(Path(root)):
        try:
            header = read_header(path)
        except BadInput as error:
            refused[path] = str(error)
            continue
        if header is not None:
            headers.setdefault(header.sop_uid, header)
    suspects = {path.parent: f"{path.name}: {line.removeprefix(f'{path}: ')}" for path, line in refused.items()}
    return Found(_mixed_studies(_assemble(headers.values(), suspects)), list(refused.values()))


def dicom_files(root: Path) -> Iterator[Path]:
    """Files that say they are DICOM, in any depth, nothing hidden; or the one that is given."""
    if root.is_file() and is_dicom(root):
        yield root
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        yield from (path for name in sorted(names) if name[0] != "." and is_dicom(path := Path(folder, name)))


def _assemble(headers: Iterable[Header], suspects: Mapping[Path, str]) -> list[DicomSeries]:
    """Files of one series and one problem together; those without a problem as volumes."""
    by_series: dict[tuple[str, str], dict[str, list[Header]]] = {}
    for header in headers:
        key = header.series.uid, header.series.patient_id
        by_series.setdefault(key, {}).setdefault(header.series.problem, []).append(header)
    found = []
    for by_problem in by_series.values():
        sound = by_problem.pop("", [])
        for problem, members in by_problem.items():
            files = tuple(file for member in members for file in member.series.files)
            found.append(replace(members[0].series, files=files))
            sound = [member._replace(damage=f"needs {Path(files[0]).name}, which {problem}") for member in sound]
        if sound:
            found.extend(_volumes(sound, _damage(sound, suspects)))
    return sorted(found, key=lambda one: (one.study_uid, one.number or 0, one.uid, one.part))


def _damage(members: Sequence[Header], suspects: Mapping[Path, str]) -> str:
    """suspects: by folder, a file in it that may be a slice of any series, and what is wrong with it."""
    known = next((member.damage for member in members if member.damage), "")
    folders = {Path(file).parent for member in members for file in member.series.files}
    lines = [suspects[folder] for folder in sorted(folders & suspects.keys())]
    return known or (f"may lack {lines[0]}" if lines else "")


def _volumes(members: Sequence[Header], damage: str) -> Iterator[DicomSeries]:
    of_file = {member.series.files[0]: member.series for member in members}
    for part, slices in volumes([one for member in members for one in member.slices]):
        first, size = slices[0], slices[0].size
        series = replace(
            of_file[first.file],
            files=(first.file,) if first.frame else tuple(one.file for one in slices),
            frames=tuple(one.frame for one in slices if one.frame),
            part=part,
            shape=(*size, len(slices)),
            spacing=spacing_of(slices),
            plane=plane_of(first),
            position=first.position,
            orientation=first.orientation,
            problem=damage or fault(slices),
        )
        yield replace(series, echo_time=first.traits["echo"])


def too_small(series: DicomSeries) -> str:
    """Why a sound series is still no volume to work on, or ""."""
    if min(series.shape) >= SMALLEST_SIDE:
        return ""
    return f"is {'x'.join(map(str, series.shape))}, but a volume needs at least {SMALLEST_SIDE} voxels a side; leave it out"


def _mixed_studies(found: Sequence[DicomSeries]) -> list[DicomSeries]:
    patients: dict[str, set[str]] = {}
    for series in found:
        patients.setdefault(series.study_uid, set()).add(series.patient_id)
    return [_one_patient(series, sorted(patients[series.study_uid])) for series in found]


def _one_patient(series: DicomSeries, patients: Sequence[str]) -> DicomSeries:
    if len(patients) == 1:
        return series
    return replace(series, problem=f"is of a study of {len(patients)} patients ({' and '.join(patients)}); separate them first")
