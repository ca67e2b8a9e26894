# SPDX-License-Identifier: Apache-2.0
"""Voxels and their places as DICOM stores them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from highdicom import AxisHandedness, PlanePositionSequence, Volume
from pydicom.valuerep import DSfloat, format_number_as_ds

SIXTEEN_BITS = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0}
SHOWN = (0.01, 0.999)  # shares of voxels below black and below white
LARGEST = np.iinfo(np.uint16).max
LPS = np.array([-1.0, -1.0, 1.0])  # from RAS
MOST_LEAN = 0.02  # of a step, twice what reading lets pass


class Placed(NamedTuple):
    """A result: voxels (columns, rows, slices), their affine (4, 4) in RAS mm, and that of the grid of their source."""

    voxels: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    source_affine: npt.NDArray[np.float64]


class Window(NamedTuple):
    """What a viewer shows from black (low) to white (high)."""

    low: float
    high: float

    @property
    def tags(self) -> dict[str, Any]:
        """As DICOM says it. LINEAR_EXACT, because LINEAR means integers: its width cannot be below 1."""
        width = max(self.high - self.low, 1e-6)
        center = (self.low + self.high) / 2
        return {"WindowCenter": decimal(center), "WindowWidth": decimal(width), "VOILUTFunction": "LINEAR_EXACT"}


class Grid(NamedTuple):
    """Slices, their thickness in mm, and whether they lie on another grid than the source's."""

    slices: Volume
    thickness: float
    finer: bool


class Stored(NamedTuple):
    """Integers, and how they become values again: value = integer * slope + intercept."""

    integers: npt.NDArray[np.uint16]
    slope: float
    intercept: float


class Stack(Volume):
    """Slices of one orientation. lean: LPS mm by which each lies off the normal of the one before, within its plane.

    Stacks are read that lean by a fraction of a degree, or whose cosines were rounded so that they seem to.
    """

    lean: npt.NDArray[np.float64] = np.zeros(3)

    def get_plane_positions(self) -> list[PlanePositionSequence]:
        """Where slices lie, to the middle one from both sides."""
        beside = np.arange(self.spatial_shape[0]) - (self.spatial_shape[0] - 1) / 2
        places = [place[0].ImagePositionPatient for place in super().get_plane_positions()]
        moved = np.array(places, dtype=np.float64) + beside[:, None] * self.lean
        return [PlanePositionSequence("PATIENT", place) for place in moved]


def as_slices(voxels: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> Stack:
    """Voxels (columns, rows, slices), affine (4, 4) in RAS mm, as (slices, rows, columns) in DICOM's own terms.

    Slices follow the cross product of row and column direction, which readers of multi-frame files take for granted.
    Raises ValueError when the axes are not orthogonal, but for what `Stack` says.
    """
    straight, lean = _upright(affine[:, [2, 1, 0, 3]], voxels.shape[2])
    slices = Volume(voxels.transpose(2, 1, 0), straight, "PATIENT", from_reference_convention="RAS")
    turned = slices.ensure_handedness(AxisHandedness.LEFT_HANDED, flip_axis=0)
    stack = Stack(turned.array, turned.affine, "PATIENT")
    stack.lean = (LPS * lean) * np.sign(turned.affine[:3, 0] @ slices.affine[:3, 0])
    return stack


def _upright(affine: npt.NDArray[np.float64], count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """An affine whose first axis, of so many slices, is along the normal of the others, and what that one leans; mm."""
    step, normal = affine[:3, 0], np.cross(affine[:3, 1], affine[:3, 2])
    along = (step @ normal) / (normal @ normal) * normal
    lean = step - along
    if not 0 < np.linalg.norm(lean) < MOST_LEAN * np.linalg.norm(step):
        return affine, np.zeros(3)
    upright = affine.copy()
    upright[:3, 0], upright[:3, 3] = along, affine[:3, 3] + lean * (count - 1) / 2
    return upright, lean


def to_integers(values: npt.NDArray[np.float32]) -> Stored:
    """Spread finite values over all 16 bits: they err by half of 1/65535 of their range at most."""
    if not np.isfinite(values).all():
        raise ValueError("the result holds NaN or infinite voxels, which DICOM cannot store as integers")
    low, high = float(values.min()), float(values.max())
    intercept, slope = _as_written(low), _as_written((high - low) / LARGEST) or 1.0
    integers = np.rint((values.astype(np.float64) - intercept) / slope).clip(0, LARGEST)
    return Stored(integers.astype(np.uint16), slope, intercept)


def window(values: npt.NDArray[np.float32]) -> Window:
    """From nearly the darkest voxel to nearly the brightest: a few that overshoot must not make the background grey."""
    low, high = np.quantile(values, SHOWN)
    return Window(float(low), float(high))


def decimal(value: Any) -> DSfloat:
    """A number in the 16 characters that a decimal string has."""
    return DSfloat(float(value), auto_format=True)


def _as_written(value: float) -> float:
    return float(format_number_as_ds(value))
