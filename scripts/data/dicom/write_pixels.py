# SPDX-License-Identifier: Apache-2.0
"""Voxels and their places as DICOM stores them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from highdicom import AxisHandedness, Volume
from pydicom.valuerep import DSfloat, format_number_as_ds

SIXTEEN_BITS = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0}
SHOWN = (0.01, 0.999)  # shares of voxels below black and below white
LARGEST = np.iinfo(np.uint16).max


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


def as_slices(voxels: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> Volume:
    """Voxels (columns, rows, slices), affine (4, 4) in RAS mm, as (slices, rows, columns) in DICOM's own terms.

    Slices follow the cross product of row and column direction, which readers of multi-frame files take for granted.
    Raises ValueError when the axes are not orthogonal.
    """
    slices = Volume(voxels.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]], "PATIENT", from_reference_convention="RAS")
    return slices.ensure_handedness(AxisHandedness.LEFT_HANDED, flip_axis=0)


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
