# SPDX-License-Identifier: Apache-2.0
"""Which DICOM series a folder, a tree of studies or a zip holds, and what is wrong with each."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import BadInput, listed
from .copies import groups, identity, twins
from .headers import Header, read_header
from .series import DicomSeries
from .slices import (
    Volume,
    count_doubts,
    fault,
    inversion_fault,
    line_of,
    pair,
    plane_of,
    scaling_doubt,
    spacing_of,
    volumes,
)
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
    """All DICOM series below a folder; only headers are read, and pixels of what may be copies. Copies of an image count once.

    An image that cannot be read may be a slice of any series beside it, so it is a problem of all series in its folder.
    """
    headers = []
    refused = {}
    for path in dicom_files(Path(root)):
        try:
            header = read_header(path)
        except BadInput as error:
            refused[path] = str(error).removeprefix(f"{path}: ")
            continue
        if header is not None:
            headers.append(header)
    suspects = {path.parent: f"{path.name}: {line}" for path, line in refused.items() if may_be_cut(path)}
    series = _distinct(_mixed_studies(_assemble(headers, suspects)))
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


def _once(refused: Mapping[Path, str]) -> list[str]:
    """A line for all files of a folder that are refused for one reason."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path, line in refused.items():
        groups.setdefault((path.parent, line), []).append(path)
    more = {key: f" (and {len(paths) - 1} more there)" if len(paths) > 1 else "" for key, paths in groups.items()}
    return [f"{paths[0]}{more[key]}: {key[1]}" for key, paths in groups.items()]


def _assemble(headers: Sequence[Header], suspects: Mapping[Path, str]) -> list[DicomSeries]:
    """Files of one series and one problem together; those without a problem as volumes."""
    found = []
    for members in groups(headers):
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
    others = twins(members)
    slices = [one for member in members for one in member.slices]
    twice = len({member.sop_uid for member in members}) < len({identity(member) for member in members})
    shared = ["has images of one SOPInstanceUID at different places; all of them are used"] if twice else []
    for volume in volumes(slices):
        if volume.slices[0].frame:  # frames are numbered in their stack
            numbers = {one.number for one in slices if one.number is not None}
        clash = _clash([one.file for one in volume.slices], others)
        problem = damage or clash or volume.lack or fault(volume.slices) or inversion_fault(volume.slices)
        told = (doubt for one in volume.slices for doubt in of_file[one.file].doubts)
        descriptions = dict.fromkeys(of_file[one.file].description for one in volume.slices)
        doubts = [*dict.fromkeys(told), *_descriptions(descriptions), *filter(None, [scaling_doubt(volume.slices)])]
        if not problem:
            problem, counted = count_doubts(volume.slices, numbers, len(slices))
            doubts += [*([] if problem else shared), *counted]
        yield replace(placed(of_file[volume.slices[0].file], volume), problem=problem, doubts=tuple(doubts))


def _clash(files: Sequence[str], others: Mapping[str, str]) -> str:
    """Why images do not go together of which two are one by their header, as `twins` tells them, or ""."""
    among = set(files)
    file = next((file for file in files if others.get(file) in among), None)
    if file is None:
        return ""
    both = pair(Path(others[file]).name, Path(file).name)
    return f"has {both} of one SOPInstanceUID and place but different pixels, as of two series; give each alone"


def _descriptions(texts: Collection[str]) -> list[str]:
    told = [text for text in texts if text]
    return [f"has images of {len(told)} descriptions ({listed(told)}); make sure that they are of one series"] * (len(told) > 1)


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
    dates: dict[str, set[str]] = {}
    for series in found:
        patients.setdefault(series.study_uid, set()).update(filter(None, [series.patient_id]))
        dates.setdefault(series.study_uid, set()).update(filter(None, [series.study_date]))
    return [_one_visit(series, len(patients[series.study_uid]), len(dates[series.study_uid])) for series in found]


def _one_visit(series: DicomSeries, patients: int, dates: int) -> DicomSeries:
    if patients > 1:
        return replace(series, problem=f"is of a study of {patients} patients; separate them first")
    if dates > 1:
        doubt = f"is of a study of {dates} dates; make sure that its series are of one visit"
        return replace(series, doubts=(*series.doubts, doubt))
    return series


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
