# SPDX-License-Identifier: Apache-2.0
"""Cine MR from DICOM: every slice a loop, ordered by when its frames were taken, classic or enhanced."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.valuerep import DT, TM

from ...errors import BadInput, listed, one_line
from ..dicom.find import placed
from ..dicom.headers import Header, value_of
from ..dicom.read import read_series
from ..dicom.series import DicomSeries, affine_of
from ..dicom.slices import SAME_PLACE_MM, Slice, Volume, count_doubts, fault, in_order, inversion_fault, stackable
from ..dicom.stream import opened, with_syntax
from ..dicom.told import silent, without_values
from .cine import Cine, Times, check_shape, check_times, check_voxels, closes

MOVED_MM = 0.2  # between frames of a slice, within its plane: positions are rounded
CYCLE = 1.5  # frame times by which a loop may miss the heartbeat and still be all of it
APART = 0.1  # between the frame times of slices, which were taken in heartbeats of different length
# What all frames share, unless their order is none of time.
ALIKE = {"component": "components", "echo": "echoes", "inversion": "inversion times", "b-value": "b-values"}
INTERVALS = ("NominalInterval", "RRIntervalTimeNominal")  # ms, of a heartbeat
GATED = ("NominalCardiacTriggerDelayTime", "TriggerTime")


def _seconds(value: Any) -> float:
    """Of a moment, from any midnight."""
    moment = DT(value) if isinstance(value, str) and len(value) >= 14 and not isinstance(value, TM) else value
    moment = moment if isinstance(moment, time | datetime) else TM(value)
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6


def _milliseconds(value: Any) -> float:
    return 1000 * _seconds(value)


# Where the time of a frame stands, the surest first, and what makes ms of it.
CLOCKS: dict[str, Callable[[Any], float]] = {
    "NominalCardiacTriggerDelayTime": float, "TriggerTime": float,
    "TemporalPositionTimeOffset": lambda seconds: 1000 * float(seconds),
    "FrameReferenceDateTime": _milliseconds, "FrameAcquisitionDateTime": _milliseconds,
    "AcquisitionDateTime": _milliseconds, "AcquisitionTime": _milliseconds,
}  # fmt: skip
TEMPORAL = "temporal position"  # the last resort: number times ms
COUNTS = (POSITION := "TemporalPositionIdentifier", RESOLUTION := "TemporalResolution", IMAGES := "CardiacNumberOfImages")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

Marks = dict[str, float]  # of an image, by keyword: what it says of time


class Loops(NamedTuple):
    """Loops of one series. series: `files` (or `frames` of one file) of all slices, each in order of time, and the geometry of
    the stack; times: (slices, frames) ms by the clock, a keyword; interval: ms of a heartbeat, 0 where nobody says.
    """

    series: DicomSeries
    times: Times
    clock: str
    interval: float
    doubts: tuple[str, ...]


def is_loop(headers: Sequence[Header]) -> bool:
    """Whether several images of a series lie at one place."""
    slices = [one for header in headers for one in header.slices]
    places = {(one.file if one.frame else "", tuple(np.round(one.position, 1))) for one in slices}
    return len(places) < len(slices)


def read_mr(path: Path, headers: Sequence[Header]) -> Cine:
    """The loop of a series. Raises BadInput unless every slice has all of its frames, at even times."""
    loops = loops_of(headers)
    name, shape = str(loops.series), (*loops.series.shape[:2], *loops.times.shape)
    check_shape(name, shape)
    times = np.median(loops.times - loops.times[:, :1], axis=0) / 1000
    voxels = read_series(loops.series).reshape(shape)
    gated, doubt = _gating(loops, times, voxels)
    doubts = [*loops.doubts, *doubt, *check_voxels(name, voxels)]
    return Cine(voxels, affine_of(loops.series), times, gated, path, tuple(f"{name} {line}" for line in doubts), loops.series)


def loops_of(headers: Sequence[Header]) -> Loops:
    """Images of a series as loops. Raises BadInput, naming the series, for what cannot be told apart or is missing."""
    name = str(headers[0].series)
    for one in headers:
        if one.series.problem and not (one.aside and "colour" not in one.series.problem):
            raise BadInput(f"{name} {one.series.problem}")
        if one.damage:
            raise BadInput(f"{name} {one.damage}")
    slices = [one for header in headers for one in header.slices]
    _refuse_mixtures(name, slices)
    stack = _by_place(slices)
    counts = [len(images) for images in stack]
    if min(counts) < max(counts):
        short = counts.index(min(counts))
        fact = f"slice {short + 1} of {len(stack)} has {counts[short]} frames, others {max(counts)}"
        raise BadInput(f"{name} lacks frames: {fact}; send the whole series again")
    marks = marks_of(slices)
    clock, passed = _clock(name, stack, marks)
    ordered = [sorted(images, key=lambda one: marks[one.file, one.frame][clock]) for images in stack]
    times = np.array([[marks[one.file, one.frame][clock] for one in images] for images in ordered])
    _check_clock(name, ordered, times)
    numbers = [one.number for one in (slices if slices[0].frame else headers)]  # frames are numbered in their stack
    lacking = _lacking(name, [images[0] for images in ordered], {one for one in numbers if one is not None}, len(slices))
    first = next(one for one in headers if one.slices)
    series = _series(first.series, ordered)
    interval = float(np.median([_interval(marks[one.file, one.frame]) for one in slices]))
    shared = dict.fromkeys(line for one in headers for line in one.series.doubts)
    twice = ["has images of one SOPInstanceUID at different places or times; all of them are used"] * _shares_uids(headers)
    return Loops(series, times, clock, interval, (*shared, *twice, *passed, *lacking, *_time_doubts(times, marks)))


def _shares_uids(headers: Sequence[Header]) -> bool:
    uids = [one.sop_uid for one in headers if one.slices]
    return len(set(uids)) < len(uids)


def _refuse_mixtures(name: str, slices: Sequence[Slice]) -> None:
    if not all(stackable(slices[0], one) for one in slices):
        raise BadInput(f"{name} holds frames of several orientations, sizes or files; give one stack of slices")
    for trait, several in ALIKE.items():
        if len(kinds := dict.fromkeys(one.traits[trait] for one in slices)) > 1:
            kind = listed([str(value) for value in kinds], most=3)
            raise BadInput(f"{name} holds frames of {len(kinds)} {several} ({kind}); give a series of one of them")
    if fault := inversion_fault(slices):
        raise BadInput(f"{name} {fault}")


def _by_place(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Images of each slice, along the normal."""
    stack: list[list[Slice]] = []
    for one in in_order(slices):
        if stack and abs(float(one.normal @ np.subtract(one.position, stack[-1][0].position))) < SAME_PLACE_MM:
            stack[-1].append(one)
        else:
            stack.append([one])
    return stack


def _clock(name: str, stack: Sequence[Sequence[Slice]], marks: dict[tuple[str, int], Marks]) -> tuple[str, list[str]]:
    """The surest clock that every image has and that goes on within a slice, and doubts about surer ones.

    Raises BadInput where there is none, and where a few images lack the time since the heartbeat: another clock may be of the
    order in which they were acquired.
    """
    doubts: list[str] = []
    for clock in (*CLOCKS, TEMPORAL):
        known = [[marks[one.file, one.frame].get(clock) for one in images] for images in stack]
        goes = [len({*times} - {None}) > 1 for times in known]
        lacking = sum(times.count(None) for times in known)
        if all(goes) and not lacking:
            return clock, doubts
        if not any(goes):
            continue
        count, still = sum(map(len, known)), goes.index(False) + 1 if False in goes else 0
        fact = f"{lacking} of {count} images lack {clock}" if lacking else f"{clock} stands still in slice {still}"
        if clock in GATED:
            raise BadInput(f"{name} cannot be put in order: {fact}; export it again with all its tags")
        doubts.append(f"is not ordered by {clock}: {fact}")
    raise BadInput(
        f"{name} does not say when its frames were taken (TriggerTime and others); export it again with all its tags"
    )


def _check_clock(name: str, ordered: Sequence[Sequence[Slice]], times: Times) -> None:
    """Raise BadInput for two frames at one time, for uneven times, and for a stack that is no grid."""
    for images, own in zip(ordered, times, strict=True):
        if (twice := np.flatnonzero(np.diff(own) == 0)).size:
            first, second = images[twice[0]], images[twice[0] + 1]
            raise BadInput(f"{name} has {first} and {second} at one place and time; remove one of them")
        if np.ptp([one.position for one in images], axis=0).max() > MOVED_MM:
            raise BadInput(f"{name} moves its slice from frame to frame; give loops that stay in place")
        check_times(name, own / 1000, clock=1e-3 if np.array_equal(own, np.rint(own)) else 0.0)
    starts = [images[0] for images in ordered]
    if len(starts) > 1 and (problem := fault(starts)):
        raise BadInput(f"{name} {problem}")
    if min(starts[0].pixel_spacing) <= 0:
        raise BadInput(f"{name} has pixels of no size (PixelSpacing); export it again")


def _series(first: DicomSeries, ordered: Sequence[Sequence[Slice]]) -> DicomSeries:
    """All images of the loops, with the geometry of the stack."""
    starts, images = [one[0] for one in ordered], [one for slices in ordered for one in slices]
    series = placed(first, Volume("", starts, 1, ""))
    across = series.spacing[2] or starts[0].between or starts[0].thickness or 1.0
    files = (starts[0].file,) if starts[0].frame else tuple(one.file for one in images)
    frames = tuple(one.frame for one in images if one.frame)
    return replace(series, files=files, frames=frames, spacing=(*series.spacing[:2], across), problem="", exclusion="")


def _lacking(name: str, starts: Sequence[Slice], numbers: Collection[int], images: int) -> list[str]:
    """What makes one think that images are missing; starts: the first of each slice. Raises BadInput where slices surely are.

    Slices as far apart as they should be may still lack frames, so that here a gap in the numbers counts in any case.
    """
    problem, counted = count_doubts(starts, numbers, images)
    if problem:
        raise BadInput(f"{name} {problem}")
    by_number = count_doubts([one._replace(thickness=0.0, between=0.0) for one in starts], numbers, images)[1]
    lines = dict.fromkeys([*counted, *by_number])
    return [line.replace("may lack slices:", "may lack slices or frames:") for line in lines]


def _time_doubts(times: Times, marks: dict[tuple[str, int], Marks]) -> list[str]:
    doubts, steps = [], np.median(np.diff(times, axis=1), axis=1)
    if np.ptp(steps) > APART * np.median(steps):
        doubts.append(f"has slices whose frames last {steps.min():.3g} to {steps.max():.3g} ms; they are taken as simultaneous")
    most = max(one.get(IMAGES, 0.0) for one in marks.values())
    if most > times.shape[1]:
        doubts.append(f"may lack frames: it has {times.shape[1]} a slice, but {most:g} by CardiacNumberOfImages")
    return doubts


def _gating(loops: Loops, times: Times, voxels: Any) -> tuple[bool, list[str]]:
    """Whether time wraps, and what is to be told of that."""
    if loops.clock not in GATED:
        return False, []
    if not loops.interval:
        closed = closes(voxels)
        fact = "its last frame is as near the first as others to the next: it wraps" if closed else "it does not wrap"
        return closed, [f"does not say how long a heartbeat is; {fact}"]
    step = 1000 * float(times[-1] - times[0]) / (len(times) - 1)
    if abs(step * len(times) - loops.interval) <= CYCLE * step:
        return True, []
    return False, [f"covers {step * len(times):.0f} of the {loops.interval:.0f} ms of a heartbeat, so time does not wrap"]


def _interval(marks: Marks) -> float:
    return next((marks[key] for key in INTERVALS if key in marks), 0.0)


def marks_of(slices: Iterable[Slice]) -> dict[tuple[str, int], Marks]:
    """By file and frame, what headers say of time."""
    marks: dict[tuple[str, int], Marks] = {}
    for file in dict.fromkeys(one.file for one in slices):
        try:
            with silent(), opened(Path(file)) as stream:
                asked: list[Any] = [*CLOCKS, *INTERVALS, *COUNTS, *GROUPS]
                dataset = with_syntax(pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=asked))
            groups = dataset.get("PerFrameFunctionalGroupsSequence")
            for number, group in enumerate(groups or [dataset], start=1):
                marks[file, number if groups else 0] = _of_image(group, dataset)
        except Exception as error:  # values that break the standard fail in many ways
            fact = f"its times cannot be read ({without_values(one_line(error))[:120]})"
            raise BadInput(f"{Path(file).name}: {fact}; export it again") from error
    return marks


def _of_image(group: Any, dataset: Any) -> Marks:
    """Clocks that cannot be read are none, so that another may count."""
    raw = {key: value_of(group, dataset, key) for key in (*CLOCKS, *INTERVALS, *COUNTS)}
    known = {key: value for key, value in raw.items() if value not in (None, "")}
    marks = {}
    for key, value in known.items():
        with suppress(TypeError, ValueError):
            marks[key] = CLOCKS.get(key, float)(value)
    if POSITION in marks and RESOLUTION in marks:
        marks[TEMPORAL] = marks[POSITION] * marks[RESOLUTION]
    return marks
