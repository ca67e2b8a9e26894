# SPDX-License-Identifier: Apache-2.0
"""Which images are of one series, each once, also where a sender gave all of them one UID."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from pydicom.uid import generate_uid

from ...errors import listed
from ...files import sha256
from .headers import Header
from .read import checksum_of_pixels
from .slices import Volume, fault, volumes

TOLD_BY = ("patient", "study", "date", "number")
UNNUMBERED = (*TOLD_BY[:-1], "description")  # by these where no header has a number

Kind = tuple[str | int | None, ...]
Alike = dict[tuple[object, ...], list[Header]]  # by `identity`


def groups(headers: Sequence[Header]) -> list[list[Header]]:
    """Images by their SeriesInstanceUID, each once, and where it is that of several series by patient, study, date and number.

    Those have another UID then, the same whenever they are read, and a doubt; visits that share their study's a problem.
    Images of one patient that are one volume stay together though they differ in the others, with a doubt.
    """
    by_uid: dict[str, list[Header]] = {}
    for one in headers:
        by_uid.setdefault(one.series.uid, []).append(one)
    return [group for members in by_uid.values() for group in _told_apart(members)]


def identity(header: Header) -> tuple[object, ...]:
    """What copies of an image share: some senders give slices at different places one instance UID."""
    series, places = header.series, [(one.position, tuple(one.traits.values())) for one in header.slices]
    return header.sop_uid, series.uid, series.patient_id, series.problem, str(places)


def twins(members: Sequence[Header]) -> Mapping[str, str]:
    """By file, another one that shares its identity and is no copy of it."""
    pairs = [(same[0], one) for same in alike(members).values() for one in same[1:]]
    return {one.series.files[0]: first.series.files[0] for first, one in pairs}


def _told_apart(members: Sequence[Header]) -> list[list[Header]]:
    words = TOLD_BY if any(one.series.number is not None for one in members) else UNNUMBERED
    kinds = [_kind(one, words) for one in members]
    images = [kind for kind, one in zip(kinds, members, strict=True) if not one.aside]
    differing = [at for at in range(len(words)) if len({kind[at] for kind in images} - {None}) > 1]
    parts: dict[Kind, list[Header]] = {}
    for kind, one in zip(kinds, members, strict=True):
        parts.setdefault(tuple(kind[at] for at in differing), []).append(one)
    told_by = [words[at] for at in differing]
    kept = _joined({kind: [one for same in part.values() for one in same] for kind, part in _new(parts).items()}, told_by)
    names = {kind: str(part[0].series) for kind, part in kept.items() if not all(one.aside for one in part)}
    if len(names) < 2:
        return list(kept.values())
    by = " and ".join(told_by)
    others = {kind: listed([name for other, name in names.items() if other != kind]) for kind in kept}
    doubts = {kind: f"has the SeriesInstanceUID of {others[kind]}, too; told apart by {by}" for kind in kept}
    problem = _mixed_visits(kept[kind] for kind in names)
    return [[_renamed(one, kind, doubts[kind], problem) for one in part] for kind, part in kept.items()]


def _kind(header: Header, words: Sequence[str]) -> Kind:
    """By these words; None where a header does not say."""
    series = header.series
    last = series.number if words == TOLD_BY else series.description or None
    return series.patient_id, series.study_uid, series.study_date or None, last


def _joined(parts: Mapping[Kind, list[Header]], told_by: Sequence[str]) -> dict[Kind, list[Header]]:
    """Parts of one patient together where they are one volume, as of a sender that writes a tag anew in each file."""
    origin = {one.series.files[0]: kind for kind, part in parts.items() for one in part}
    joined = dict(origin)  # by file, of all parts that go together the first
    of_patient: dict[str, list[Header]] = {}
    for one in (one for part in parts.values() for one in part if not one.aside):
        of_patient.setdefault(one.series.patient_id, []).append(one)
    for own in of_patient.values() if len(parts) > 1 else ():
        if any(one.series.problem for one in own):  # it may be a slice of any
            continue
        for volume in volumes([one for same in alike(own).values() for one in same[0].slices]):
            if _is_of_one_series(volume, [origin[one.file] for one in volume.slices]):
                together = {joined[one.file] for one in volume.slices}
                first = min(together, key=str)
                joined = {file: first if kind in together else kind for file, kind in joined.items()}
    groups: dict[Kind, list[Header]] = {}
    for one in (one for part in parts.values() for one in part):
        groups.setdefault(joined[one.series.files[0]], []).append(one)
    return {kind: _as_one(group, [origin[one.series.files[0]] for one in group], told_by) for kind, group in groups.items()}


def _is_of_one_series(volume: Volume, kinds: Sequence[Kind]) -> bool:
    """Whether a whole volume of slices of several kinds is no heap of series, each of which would count its images anew."""
    if len(set(kinds)) < 2 or volume.lack or fault(volume.slices):
        return False
    counted = [(kind, one.number) for kind, one in zip(kinds, volume.slices, strict=True) if one.number is not None]
    once = len({number for _, number in counted}) == len(counted)
    single = len(set(kinds)) == len(kinds)
    return once or single or len(set(counted)) < len(counted)  # numbers that are alike within a kind count nothing


def _as_one(group: list[Header], kinds: Sequence[Kind], told_by: Sequence[str]) -> list[Header]:
    """Images of several kinds, each once, with a doubt; that their descriptions differ is told of every volume."""
    if len(set(kinds)) < 2:
        return group
    differing = [word for at, word in enumerate(told_by) if len({kind[at] for kind in kinds}) > 1 and word != "description"]
    doubt = f"has images that differ in {' and '.join(differing)} and are used as one series, for they are one volume"
    doubts = (doubt,) if differing else ()
    once = [one for same in alike(group).values() for one in _by_pixels(same)]
    return [one._replace(series=replace(one.series, doubts=(*one.series.doubts, *doubts))) for one in once]


def _mixed_visits(parts: Iterable[Sequence[Header]]) -> str:
    """Why series of one UID are not to be used that are of one study, too, but not of one date, or ""."""
    visits = {(one[0].series.study_uid, one[0].series.study_date) for one in parts if one[0].series.study_date}
    mixed = len(visits) > len({study for study, _ in visits})
    return "has the UIDs of a series of another date; give each visit alone" if mixed else ""


def _renamed(header: Header, kind: Kind, doubt: str, problem: str) -> Header:
    series = header.series
    uid = generate_uid(entropy_srcs=["score-fusion", series.uid, *map(str, kind)])
    problem = series.problem or problem
    return header._replace(series=replace(series, uid=uid, doubts=(*series.doubts, doubt), problem=problem))


def alike(members: Sequence[Header]) -> Alike:
    """Images by `identity`: several of one are copies, or share an instance UID that they should not."""
    by_identity: Alike = {}
    for one in members:
        by_identity.setdefault(identity(one), []).append(one)
    return by_identity


def _new(parts: Mapping[Kind, Sequence[Header]]) -> dict[Kind, Alike]:
    """Without copies, and without the parts that are copies of others but for what headers say of the series."""
    once = {kind: {own: _by_pixels(same) for own, same in alike(part).items()} for kind, part in parts.items()}
    pixels = cache(_pixels)
    kept: dict[Kind, Alike] = {}
    for kind in sorted(once, key=lambda kind: -len(once[kind])):
        if not any(_repeats(once[kind], other, pixels) for other in kept.values()):
            kept[kind] = once[kind]
    return kept


def _by_pixels(same: Sequence[Header]) -> list[Header]:
    """Of images of one identity those that are no copies: these have the same pixels, however they were compressed."""
    whole = [one for one in same if not one.damage]  # of two copies the whole one counts
    if len(whole) < 2 or whole[0].series.problem:
        return [*whole, *same][:1]
    by_content: dict[str, Header] = {}
    for one in whole:
        by_content.setdefault(sha256(Path(one.series.files[0])), one)
    if len(by_content) == 1:
        return whole[:1]
    by_pixels: dict[str, Header] = {}
    for one in by_content.values():
        by_pixels.setdefault(_pixels(one.series.files[0]), one)
    return list(by_pixels.values())


def _repeats(part: Alike, other: Alike, pixels: Callable[[str], str]) -> bool:
    """Whether each image of a part is a copy of one of another; the first that is none ends the search."""
    pairs = ((one, other.get(own, [])) for own, same in part.items() for one in same)
    return all(any(pixels(one.series.files[0]) == pixels(twin.series.files[0]) for twin in same) for one, same in pairs)


def _pixels(file: str) -> str:
    return checksum_of_pixels(Path(file)) or sha256(Path(file))
