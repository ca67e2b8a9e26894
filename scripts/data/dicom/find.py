# SPDX-License-Identifier: Apache-2.0
"""Which DICOM series a folder, a tree of studies or a zip holds, and what is wrong with each."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import BadInput
from .headers import Header, read_header
from .series import DicomSeries
from .slices import Volume, count_doubts, fault, inversion_fault, line_of, plane_of, scaling_doubt, spacing_of, volumes
from .stream import is_dicom, may_be_cut
from .words import exclusion

SMALLEST_SIDE = 5  # of a volume, in voxels
MOST_VOXELS = 1 << 29  # of a volume: 2 GiB as float32
IN_TIME = 3  # volumes that differ in time alone are a film and no choice of scans


class Found(NamedTuple):
    """series: every volume, sound or with a `problem`, sorted by study and number. refused: a line for files of one fault."""

    series: list[DicomSeries]
    refused: list[str]


def find_series(root: str | Path) -> Found:
    """All DICOM series below a folder; only headers are read. Copies of an image count once.

    An image that cannot be read may be a slice of any series beside it, so it is a problem of all series in its folder.
    """
    headers: dict[tuple[object, ...], Header] = {}
    refused = {}
    for path in dicom_files(Path(root)):
        try:
            header = read_header(path)
        except BadInput as error:
            refused[path] = str(error).removeprefix(f"{path}: ")
            continue
        if header is not None:
            key = _identity(header)
            if key not in headers or headers[key].damage:  # of two copies the whole one counts
                headers[key] = header
    suspects = {path.parent: f"{path.name}: {line}" for path, line in refused.items() if may_be_cut(path)}
    series = _distinct(_mixed_studies(_assemble(headers.values(), suspects)))
    named = [replace(one, doubts=tuple(f"{one} {doubt}" for doubt in one.doubts)) for one in series]
    return Found(named, _once(refused))


def dicom_files(root: Path) -> Iterator[Path]:
    """Files that say they are DICOM, in any depth, nothing hidden, each folder once, links too; or the one that is given."""
    if root.is_file() and is_dicom(root):
        yield root
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link back to where it hangs
            subfolders.clear()
            continue
        seen.add(place)
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        yield from (path for name in sorted(names) if name[0] != "." and is_dicom(path := Path(folder, name)))


def _identity(header: Header) -> tuple[object, ...]:
    """What copies of an image share: some senders give slices at different places one instance UID."""
    series, places = header.series, [(one.position, tuple(one.traits.values())) for one in header.slices]
    return header.sop_uid, series.uid, series.patient_id, series.problem, str(places)


def _once(refused: Mapping[Path, str]) -> list[str]:
    """A line for all files of a folder that are refused for one reason."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path, line in refused.items():
        groups.setdefault((path.parent, line), []).append(path)
    more = {key: f" (and {len(paths) - 1} more there)" if len(paths) > 1 else "" for key, paths in groups.items()}
    return [f"{paths[0]}{more[key]}: {key[1]}" for key, paths in groups.items()]


def _assemble(headers: Iterable[Header], suspects: Mapping[Path, str]) -> list[DicomSeries]:
    """Files of one series and one problem together; those without a problem as volumes."""
    by_series: dict[tuple[str, str], list[Header]] = {}
    for header in headers:
        by_series.setdefault((header.series.uid, header.series.patient_id), []).append(header)
    found = []
    for members in by_series.values():
        sound = [one for one in members if not one.series.problem]
        by_problem: dict[str, list[Header]] = {}
        for one in members:
            by_problem.setdefault(one.series.problem, []).append(one)
        for problem, faulty in by_problem.items():
            if problem:
                found.append(_unusable(faulty, beside=len(faulty) < len(members)))
                if not faulty[0].aside:
                    damage = f"needs {Path(faulty[0].series.files[0]).name}, which {problem}"
                    sound = [one._replace(damage=one.damage or damage) for one in sound]
        if sound:
            found.extend(_volumes(sound, _damage(sound, suspects), {one.number for one in members if one.number is not None}))
    return sorted(found, key=lambda one: (one.study_uid, one.number or 0, one.uid, one.part))


def _unusable(members: Sequence[Header], *, beside: bool) -> DicomSeries:
    """Files of one problem, `beside` others of their series."""
    files = tuple(file for member in members for file in member.series.files)
    part = f"{len(files)} of its files" if beside else ""
    return replace(members[0].series, files=files, part=part)


def _damage(members: Sequence[Header], suspects: Mapping[Path, str]) -> str:
    """suspects: by folder, a file in it that may be a slice of any series, and what is wrong with it."""
    known = next((member.damage for member in members if member.damage), "")
    folders = {Path(file).parent for member in members for file in member.series.files}
    lines = [suspects[folder] for folder in sorted(folders & suspects.keys())]
    return known or (f"may lack {lines[0]}" if lines else "")


def _volumes(members: Sequence[Header], damage: str, numbers: set[int]) -> Iterator[DicomSeries]:
    of_file = {member.series.files[0]: member.series for member in members}
    slices = [one for member in members for one in member.slices]
    twice = len({member.sop_uid for member in members}) < len(members)
    shared = ["has images of one SOPInstanceUID at different places; all of them are used"] if twice else []
    for volume in volumes(slices):
        if volume.slices[0].frame:  # frames are numbered in their stack
            numbers = {one.number for one in slices if one.number is not None}
        problem = damage or volume.lack or fault(volume.slices) or inversion_fault(volume.slices)
        told = (doubt for one in volume.slices for doubt in of_file[one.file].doubts)
        doubts = [*dict.fromkeys(told), *shared, *filter(None, [scaling_doubt(volume.slices)])]
        if not problem:
            problem, counted = count_doubts(volume.slices, numbers, len(slices))
            doubts += counted
        yield replace(placed(of_file[volume.slices[0].file], volume), problem=problem, doubts=tuple(doubts))


def placed(series: DicomSeries, volume: Volume) -> DicomSeries:
    """What the slices of a volume say over what their file does."""
    first, count = volume.slices[0], len(volume.slices)
    start, step = line_of(volume.slices)
    straight = abs(float(step @ first.normal) - float(np.linalg.norm(step))) < 1e-9
    traits = first.traits
    excluded = exclusion({*first.kind, traits["component"].upper()}, series.description, series.body_part)
    if not excluded and volume.repetitions >= IN_TIME:
        excluded = f"is one of {volume.repetitions} volumes in time"
    return replace(
        series,
        files=(first.file,) if first.frame else tuple(one.file for one in volume.slices),
        frames=tuple(one.frame for one in volume.slices if one.frame),
        part=volume.name,
        image_type=first.kind or series.image_type,
        contrast=first.contrast,
        echo_time=traits["echo"],
        inversion_time=traits["inversion"],
        shape=(*first.size, count),
        spacing=spacing_of(volume.slices),
        thickness=float(np.median([one.thickness for one in volume.slices if one.thickness > 0] or [0.0])),
        plane=plane_of(first),
        position=tuple(map(float, start)),
        orientation=first.orientation,
        step=() if straight else tuple(map(float, step)),
        exclusion=excluded,
    )


def too_small(series: DicomSeries) -> str:
    """Why a sound series is still no volume to work on, or ""."""
    sides = "x".join(map(str, series.shape))
    if min(series.shape) < SMALLEST_SIDE:
        return f"is {sides}, but a volume needs at least {SMALLEST_SIDE} voxels a side; leave it out"
    if np.prod(series.shape, dtype=float) > MOST_VOXELS:
        return f"is {sides}, too large to work on; cut out the part that is wanted"
    return ""


def _mixed_studies(found: Sequence[DicomSeries]) -> list[DicomSeries]:
    patients: dict[str, set[str]] = {}
    for series in found:
        patients.setdefault(series.study_uid, set()).update(filter(None, [series.patient_id]))
    return [_one_patient(series, len(patients[series.study_uid])) for series in found]


def _one_patient(series: DicomSeries, patients: int) -> DicomSeries:
    if patients < 2:
        return series
    return replace(series, problem=f"is of a study of {patients} patients; separate them first")


def _distinct(found: Sequence[DicomSeries]) -> list[DicomSeries]:
    """Two volumes of a study with one label told apart, so that a rule can name either."""
    by_label: dict[tuple[str, str], list[DicomSeries]] = {}
    for one in found:
        by_label.setdefault((one.study_uid, one.label), []).append(one)
    new = {
        id(one): part for alike in by_label.values() if len(alike) > 1 for one, part in zip(alike, _parts(alike), strict=True)
    }
    return [replace(one, part=f"{one.part} {new[id(one)]}".strip()) if id(one) in new else one for one in found]


def _parts(alike: Sequence[DicomSeries]) -> list[str]:
    ways: tuple[Callable[[DicomSeries], str], ...] = (
        lambda one: f"uid {one.uid[-8:]}",
        lambda one: f"file {Path(one.files[0]).name}",
        lambda one: f"folder {Path(one.files[0]).parent.name}",
    )
    for way in ways:
        if len(set(texts := [way(one) for one in alike])) == len(alike):
            return texts
    return [f"volume {number}" for number in range(1, len(alike) + 1)]
