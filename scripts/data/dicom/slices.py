# SPDX-License-Identifier: Apache-2.0
"""Slices in space: which form a volume together, and whether nothing is missing between them."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .told import is_common

Array = npt.NDArray[np.float64]

PLANES = ("sagittal", "coronal", "axial")  # by the axis along which the normal points: left, posterior, superior
OBLIQUE_COSINE = math.cos(math.radians(30))
SAME_DIRECTION = 6e-3  # of direction cosines, which some write with two decimals: 0.3 degrees
SAME_SIZE = 1e-3  # of pixels, relative
SAME_PLACE_MM = 0.02
OFF_LINE, OFF_LINE_MM = 0.02, 0.1  # from an even grid, of the spacing or where oblique positions have one decimal
STRAIGHT_MM = 0.05  # in the plane, from end to end of a stack: as straight as rounded positions can be
TILT, TILT_MM = 0.01, 0.2  # of the stack's length: what cosines of two decimals can be wrong by; more is a tilted gantry
ROUNDING = 0.05  # of spacings that are compared with what the header says

FIRM = ("component", "echo", "inversion")  # never two of them in a volume
LOOSE = ("b-value", "time", "trigger", "kind", "acquisition")  # may change within a volume; tell apart what shares a place
WRITTEN = ("time", "kind", "acquisition")  # which are text in the header


class Slice(NamedTuple):
    """One image of a file. frame: from 1, 0 in a file of one image. position, orientation, pixel_spacing: as in DICOM.

    size: (columns, rows). traits: by the words of `FIRM` and `LOOSE`. kind: words of its image type. contrast: the
    scanner's word for its weighting. number: its place in the series or stack; thickness and between: mm, as the header
    says, 0 where it does not; images: how many the acquisition has. scaling: units beyond slope and intercept.
    inverted: whether high values are black.
    """

    file: str
    frame: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    size: tuple[int, int]
    traits: Mapping[str, Any]
    kind: tuple[str, ...] = ()
    contrast: str = ""
    number: int | None = None
    thickness: float = 0.0
    between: float = 0.0
    images: int = 0
    scaling: tuple[Any, ...] = ()
    inverted: bool = False

    @property
    def normal(self) -> Array:
        """Row direction x column direction, in LPS."""
        cross = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(cross / np.linalg.norm(cross), dtype=np.float64)

    def __str__(self) -> str:
        return f"frame {self.frame}" if self.frame else Path(self.file).name


class Volume(NamedTuple):
    """name: what tells it from the others of its series, "" for the only one. slices: along the normal.

    repetitions: how many volumes differ from it in `LOOSE` traits alone, itself included. lack: what others show it lacks.
    """

    name: str
    slices: list[Slice]
    repetitions: int
    lack: str


def volumes(slices: Sequence[Slice]) -> Iterator[Volume]:
    """Slices of a series as volumes of one echo, component, inversion and orientation each."""
    stacks: list[list[Slice]] = []
    for one in slices:
        stack = next((stack for stack in stacks if stackable(stack[0], one)), None)
        if stack is None:
            stacks.append([one])
        else:
            stack.append(one)
    for stack in stacks:
        parts = list(_split(_kind(stack[0]) if len(stacks) > 1 else "", stack, FIRM))
        for name, part in parts:
            repetitions = list(_split(name, part, LOOSE))
            lack = _lack(part, parts)
            yield from (Volume(own, in_order(one), len(repetitions), lack) for own, one in repetitions)


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Sorted along the normal of the first."""
    normal = slices[0].normal
    return sorted(slices, key=lambda one: float(normal @ one.position))


def line_of(slices: Sequence[Slice]) -> tuple[Array, Array]:
    """Position of the first slice and step from slice to slice, LPS mm, on the straight line that fits all best.

    The step is along the normal, unless rounded direction cosines turn the normal away from where the slices lie.
    """
    positions = np.array([one.position for one in slices], dtype=np.float64)
    count = np.arange(len(slices)) - (len(slices) - 1) / 2
    step = count @ positions / (float(count @ count) or 1.0)
    along = float(step @ slices[0].normal) * slices[0].normal
    if np.linalg.norm(step - along) * len(slices) <= STRAIGHT_MM:
        step = along
    return positions.mean(axis=0) + count[0] * step, step


def spacing_of(slices: Sequence[Slice]) -> tuple[float, float, float]:
    """Millimetres from column to column, row to row and slice to slice; 0 for a single slice."""
    return slices[0].pixel_spacing[1], slices[0].pixel_spacing[0], float(np.linalg.norm(line_of(slices)[1]))


def plane_of(one: Slice) -> str:
    """The plane of a slice: "oblique" when its normal is more than 30 degrees from every axis."""
    cosines = np.abs(one.normal)
    return PLANES[int(cosines.argmax())] if cosines.max() > OBLIQUE_COSINE else "oblique"


def fault(slices: Sequence[Slice]) -> str:
    """Why slices in order are not a grid, as in "lacks 1 slice: ..."; "" when they are."""
    if len(slices) < 2:
        return "is a single slice; a volume needs several"
    if min(slices[0].pixel_spacing) <= 0:
        return "has pixels of no size (PixelSpacing); export it again"
    places = np.array([one.position for one in slices]) @ slices[0].normal
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    pairs = list(pairwise(slices))
    if places[-1] - places[0] < SAME_PLACE_MM:
        return f"has all {len(slices)} images at the same place, as a film does; for one --task cine_super_resolution"
    if gaps.min() < SAME_PLACE_MM or usual < SAME_PLACE_MM:
        first, second = pairs[int(gaps.argmin())]
        more = int((gaps < SAME_PLACE_MM).sum()) - 1
        remedy = f", and {more} more such pairs; give each series alone" if more else "; remove one of them"
        return f"has {pair(str(first), str(second))} at the same place{remedy}"
    start, step = line_of(slices)
    off = np.abs(places - (start + np.outer(np.arange(len(slices)), step)) @ slices[0].normal).max()
    if off > min(max(OFF_LINE * usual, OFF_LINE_MM), usual / 10):
        worst = int(np.abs(gaps - usual).argmax())
        first, second = pairs[worst]
        fact = f"{pair(str(first), str(second))} are {gaps[worst]:.4g} mm apart, the others {usual:.4g} mm"
        lost = round(float(gaps[worst]) / usual) - 1
        if lost < 1:
            return f"is unevenly spaced: {fact}; resample it to an even spacing"
        return f"lacks {lost} slice{'s' if lost > 1 else ''}: {fact}; send the whole series again"
    drift, length = _drift(slices), float(places[-1] - places[0])
    if drift.max() <= max(TILT_MM, TILT * length):
        return ""
    degrees = math.degrees(math.atan2(float(drift[-1]), length))
    return f"is stacked {degrees:.3g} degrees off its slices' normal (gantry tilt); resample it first"


def count_doubts(slices: Sequence[Slice], numbers: Collection[int], images: int) -> tuple[str, list[str]]:
    """Why an even grid is only every other slice of a scan, or "", and what makes one think that slices are missing.

    numbers: of all images of the series; images: how many there are.
    """
    first, step = slices[0], spacing_of(slices)[2]
    lost = _lost(numbers)
    facts = []
    if first.between and step > first.between * 1.5 and first.thickness <= first.between * (1 + ROUNDING):
        facts.append(f"its slices are {step:.4g} mm apart, but {first.between:.4g} mm by SpacingBetweenSlices")
    elif 2 * len(lost) >= len(numbers) - 1 and 0 < first.thickness < step / 1.9 and not _agree(step, first.between):
        facts.append(f"its slices are {step:.4g} mm apart, but {first.thickness:.4g} mm thick")
    inner = [number for number in lost if number > min(numbers)]
    lacking = lost if not _agree(step, first.between) else [number for number in lost if number not in inner]
    if lacking:
        few = ", ".join(map(str, lacking[:3])) + (" ..." if len(lacking) > 3 else "")
        missing = f"no image has number {few} of {max(numbers)}"
        if facts:
            return f"lacks slices: {facts[0]}, and {missing}; send the whole series again", []
        facts.append(missing)
    if first.images > images:
        facts.append(f"it has {images} images, but {first.images} by ImagesInAcquisition")
    return "", [f"may lack slices: {fact}" for fact in facts]


def scaling_doubt(slices: Sequence[Slice]) -> str:
    """Whether values of a volume's slices cannot be compared, or ""."""
    kinds = sorted({" ".join(str(word) for word in one.scaling if word) or "none" for one in slices})
    told = [kind if is_common(kind) else "another" for kind in kinds[:3]]
    return (
        f"has slices of different units or scales ({', '.join(told)}): their values may not compare" if len(kinds) > 1 else ""
    )


def inversion_fault(slices: Sequence[Slice]) -> str:
    """Why slices do not compare of which some are black where others are white, or ""."""
    black, white = (next((one for one in slices if one.inverted == inverted), None) for inverted in (True, False))
    if black is None or white is None:
        return ""
    another = "another " * (str(black) == str(white))
    return f"has {black} in MONOCHROME1 and {another}{white} in MONOCHROME2, black where the other is white; export it again"


def pair(first: str, second: str) -> str:
    """Two files by their names, which are alike in two folders; folders may be named after patients."""
    return f"{first} and {'another of that name' if first == second else second}"


def _agree(step: float, between: float) -> bool:
    return between > 0 and abs(step / between - 1) < ROUNDING


def _lost(numbers: Collection[int]) -> list[int]:
    """Numbers that are missing from a series counted from 1; none where numbers do not count images."""
    if not numbers:
        return []
    low, high = min(numbers), max(numbers)
    first = 1 if 1 < low <= 4 else low
    if high + 1 - first > 4 * len(numbers):  # up to 2^31 of them
        return []
    return sorted(set(range(first, high + 1)).difference(numbers))


def _drift(slices: Sequence[Slice]) -> Array:
    """Millimetres by which slices leave the straight line along their normal."""
    normal = slices[0].normal
    along = np.subtract([one.position for one in slices], slices[0].position)
    return np.asarray(np.linalg.norm(along - np.outer(along @ normal, normal), axis=1))


def stackable(first: Slice, second: Slice) -> bool:
    """Of one orientation, size and pixel size; enhanced images are whole in one file."""
    if first.size != second.size or (first.frame and first.file != second.file):
        return False
    turned = np.abs(np.subtract(first.orientation, second.orientation)).max() > SAME_DIRECTION
    return not turned and bool(np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=SAME_SIZE))


def _kind(one: Slice) -> str:
    return f"{plane_of(one)} {one.size[0]}x{one.size[1]}"


def _split(name: str, slices: list[Slice], traits: Sequence[str]) -> Iterator[tuple[str, list[Slice]]]:
    """Slices by each trait in turn; by a loose one only where several lie at one place."""
    if not traits or (traits[0] in LOOSE and not _repeated(slices)):
        yield name, slices
        return
    trait, *others = traits
    parts: dict[Any, list[Slice]] = {}
    for one in slices:
        parts.setdefault(one.traits.get(trait), []).append(one)
    counts = [len(part) for part in parts.values()]
    # A single odd slice is a fault and no volume, and a trait that every slice has for itself tells nothing apart.
    if len(parts) == 1 or (max(counts) if trait in FIRM else min(counts)) < 2:
        yield from _split(name, slices, others)
        return
    for place, (value, part) in enumerate(parts.items(), start=1):
        text = f"{value:g}" if isinstance(value, float) else value or "none"
        text = text if trait not in WRITTEN or is_common(text) else f"number {place}"
        yield from _split(f"{name} {trait} {text}".strip(), part, others)


def _repeated(slices: Sequence[Slice]) -> bool:
    places = {tuple(np.round(one.position, 2)) for one in slices}
    return len(places) < len(slices)


def _lack(part: Sequence[Slice], parts: Sequence[tuple[str, Sequence[Slice]]]) -> str:
    """Whether another echo, component or inversion of the stack shows slices where this part has none."""
    normal = part[0].normal
    own = np.array([normal @ one.position for one in part])
    for name, other in parts:
        places = {round(float(normal @ one.position), 1) for one in other}
        missing = sum(np.abs(own - place).min() > 0.2 for place in places)
        if missing:
            return f"lacks {missing} slice{'s' if missing > 1 else ''} that {name} has; send the whole series again"
    return ""
