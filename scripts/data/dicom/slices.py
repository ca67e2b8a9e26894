# SPDX-License-Identifier: Apache-2.0
"""Slices in space: which form a volume together, and whether nothing is missing between them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .series import DicomSeries

PLANES = ("sagittal", "coronal", "axial")  # by the axis along which the normal points: left, posterior, superior
OBLIQUE_COSINE = math.cos(math.radians(30))
SAME_DIRECTION = 1e-3  # of direction cosines: 0.06 degrees
UNEVEN = 0.01  # of the spacing
ROUNDED_MM = 0.02  # positions are often written with two decimals
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
DRIFT = 1e-3  # in the plane, of the stack's length


class Slice(NamedTuple):
    """One image of a file. frame: from 1, 0 in a file of one image. position, orientation, pixel_spacing: as in DICOM.

    size: (columns, rows). traits: what tells volumes at the same place apart, the most telling first.
    """

    file: str
    frame: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    size: tuple[int, int]
    traits: Mapping[str, Any]

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Row direction x column direction, in LPS."""
        cross = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(cross / np.linalg.norm(cross), dtype=np.float64)

    def __str__(self) -> str:
        return f"frame {self.frame}" if self.frame else Path(self.file).name


def volumes(slices: Sequence[Slice]) -> list[tuple[str, list[Slice]]]:
    """Slices of a series as volumes: what tells each apart ("" when there is one), and its slices along the normal."""
    stacks: list[list[Slice]] = []
    for one in slices:
        stack = next((stack for stack in stacks if _stackable(stack[0], one)), None)
        if stack is None:
            stacks.append([one])
        else:
            stack.append(one)
    named = [(_kind(stack[0]) if len(stacks) > 1 else "", stack) for stack in stacks]
    return [(name, in_order(part)) for kind, stack in named for name, part in _split(kind, stack, list(stack[0].traits))]


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Sorted along the normal of the first."""
    normal = slices[0].normal
    return sorted(slices, key=lambda one: float(normal @ one.position))


def spacing_of(slices: Sequence[Slice]) -> tuple[float, float, float]:
    """Millimetres from column to column, row to row and, on average, slice to slice; 0 for a single slice."""
    length = float(slices[0].normal @ np.subtract(slices[-1].position, slices[0].position))
    return slices[0].pixel_spacing[1], slices[0].pixel_spacing[0], length / max(len(slices) - 1, 1)


def affine_of(series: DicomSeries) -> npt.NDArray[np.float64]:
    """4x4, voxels (column, row, slice) to mm in RAS, from the headers alone."""
    along, down = np.reshape(series.orientation, (2, 3))
    lps = np.eye(4)
    lps[:3, :3] = np.stack([along, down, np.cross(along, down)], axis=1) * series.spacing
    lps[:3, 3] = series.position
    return np.asarray(LPS_TO_RAS @ lps)


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
    steps = np.diff([one.position for one in slices], axis=0)
    gaps = steps @ slices[0].normal
    usual = float(np.median(gaps))
    pairs = list(pairwise(slices))
    if gaps.min() < ROUNDED_MM or usual < ROUNDED_MM:
        first, second = pairs[int(gaps.argmin())]
        return f"has {first} and {second} at the same place; remove one of them"
    uneven = np.abs(gaps - usual) > max(UNEVEN * usual, ROUNDED_MM)
    if uneven.any():
        worst = int(np.abs(gaps - usual).argmax())
        first, second = pairs[worst]
        fact = f"{first} and {second} are {gaps[worst]:.4g} mm apart, the others {usual:.4g} mm"
        lost = round(float(gaps[worst]) / usual) - 1
        if lost < 1:
            return f"is unevenly spaced: {fact}; resample it to an even spacing"
        return f"lacks {lost} slice{'s' if lost > 1 else ''}: {fact}; send the whole series again"
    return _shear(slices)


def _shear(slices: Sequence[Slice]) -> str:
    """Whether slices leave the straight line along their normal, as with a tilted gantry."""
    normal = slices[0].normal
    along = np.subtract([one.position for one in slices], slices[0].position)
    drift = np.linalg.norm(along - np.outer(along @ normal, normal), axis=1)
    length = float(along[-1] @ normal)
    if drift.max() <= max(DRIFT * length, 0.1):
        return ""
    degrees = math.degrees(math.atan2(float(drift[-1]), length))
    return f"is stacked {degrees:.3g} degrees off its slices' normal (gantry tilt); resample it first"


def _stackable(first: Slice, second: Slice) -> bool:
    """Of one orientation, size and pixel size; enhanced images are whole in one file."""
    if first.size != second.size or (first.frame and first.file != second.file):
        return False
    turned = np.abs(np.subtract(first.orientation, second.orientation)).max() > SAME_DIRECTION
    return not turned and bool(np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=1e-4))


def _kind(one: Slice) -> str:
    return f"{plane_of(one)} {one.size[0]}x{one.size[1]}"


def _split(name: str, slices: list[Slice], traits: Sequence[str]) -> Iterator[tuple[str, list[Slice]]]:
    """Only slices at the same place are told apart: acquisition numbers, for one, may change within a volume."""
    if not traits or not _repeated(slices):
        yield name, slices
        return
    trait, *others = traits
    parts: dict[Any, list[Slice]] = {}
    for one in slices:
        parts.setdefault(one.traits[trait], []).append(one)
    if len(parts) == 1 or min(map(len, parts.values())) < 2:  # a single odd slice is a fault, not a volume
        yield from _split(name, slices, others)
        return
    for value, part in parts.items():
        told = f"{value:g}" if isinstance(value, float) else value
        yield from _split(f"{name} {trait} {told}".strip(), part, others)


def _repeated(slices: Sequence[Slice]) -> bool:
    places = {tuple(np.round(one.position, 2)) for one in slices}
    return len(places) < len(slices)
