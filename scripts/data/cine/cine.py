# SPDX-License-Identifier: Apache-2.0
"""A loop of images, and what every kind of file is asked before it counts as one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import BadInput, listed
from ..doubts import by

if TYPE_CHECKING:
    from ..dicom import DicomSeries

Times = npt.NDArray[np.float64]

SMALLEST_SIDE = 5  # of a frame, in pixels
FEWEST = 5  # frames
MOST_VOXELS = 1 << 27  # of all frames of all slices: 0.5 GiB as float32
LEAST_S, MOST_S = 5e-4, 1.5  # between frames: 2000 a second; slower than any film of something that moves
UNEVEN = 0.1  # of the usual time between two frames
ROUNDED = 0.51  # of the clock's step: what a time that was rounded to it can be off
CLOSED, FEWEST_TO_CLOSE = 1.5, 4  # times the usual step from frame to frame; half a beat has the sum of its steps


@dataclass(frozen=True)
class Cine:
    """voxels: (X, Y, slices, frames) as in the file, x along the rows of an image. affine: (4, 4), voxel (x, y, slice) to mm in
    RAS; of videos and ultrasound the identity, in pixels. frame_times: (frames,) s from the first frame. gated: whether the
    loop is periodic, as of a gated heart cycle, so that time wraps. source: the file or folder it was read from. series: of
    DICOM, whose it is.
    """

    voxels: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    frame_times: Times
    gated: bool
    source: Path
    doubts: tuple[str, ...] = ()
    series: DicomSeries | None = None


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Before pixels are read: raise BadInput unless (X, Y, slices, frames) is a loop of a size to work on."""
    if shape[3] < 2:
        raise BadInput(f"{name}: is a single frame; a cine needs several: give the whole loop")
    if shape[3] < FEWEST:
        raise BadInput(f"{name}: has {shape[3]} frames, but a loop needs at least {FEWEST}; give the whole loop")
    if min(shape[:2]) < SMALLEST_SIDE:
        raise BadInput(f"{name}: its frames are {by(shape[:2])}, but they need at least {SMALLEST_SIDE} pixels a side")
    if np.prod(shape, dtype=float) > MOST_VOXELS:
        fact = f"holds {by(shape)} voxels, above the {MOST_VOXELS:.2g} that are worked on"
        raise BadInput(f"{name}: {fact}; cut out the frames or the part that is wanted")


def check_voxels(name: str, voxels: npt.NDArray[Any]) -> list[str]:
    """Doubts about frames (X, Y, slices, frames). Raises BadInput for voxels without a value, and where all are the same."""
    low, high = float(voxels.min()), float(voxels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadInput(f"{name}: holds NaN or infinite voxels; replace them, for example by the background value")
    if low == high:
        raise BadInput(f"{name}: every voxel of every frame is {low:g}; there is nothing to restore")
    doubts = list[str]()
    if len(filled := slices_with_content(voxels)) < voxels.shape[2]:
        empty = [str(k + 1) for k in range(voxels.shape[2]) if k not in filled]
        doubts.append(f"holds a single value in slice {listed(empty)}, which nothing is made of: it stays as it is")
    still = [k for k in range(1, voxels.shape[3]) if np.array_equal(voxels[..., k], voxels[..., k - 1])]
    if len(still) == voxels.shape[3] - 1:
        doubts.append("all of its frames are the same: nothing moves")
    elif still:
        doubts.append(f"frame {still[0] + 1} is the same as the one before, as are {len(still) - 1} others")
    return doubts


def slices_with_content(voxels: npt.NDArray[Any]) -> list[int]:
    """Slices of (X, Y, slices, frames), counted from 0, that are not of one value alone, as those that fill up a stack are."""
    return [k for k in range(voxels.shape[2]) if voxels[:, :, k].min() < voxels[:, :, k].max()]


def check_times(name: str, times: Times, clock: float = 0.0) -> None:
    """Raise BadInput unless frames follow each other at even times (s), but for rounding to the steps of a clock (s)."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    if not np.isfinite(times).all() or usual <= 0 or steps.min() <= 0:
        worst = int(steps.argmin())
        fact = f"frames {worst + 1} and {worst + 2} are at {times[worst]:g} and {times[worst + 1]:g} s"
        raise BadInput(f"{name}: {fact}, but time must go on from frame to frame; remove copies, or export it again")
    if not LEAST_S <= usual <= MOST_S:
        fact = f"its frames are {usual:.4g} s apart, which no film of something that moves is"
        raise BadInput(f"{name}: {fact}; correct the times or their unit, or leave it out if they are none")
    worst = int(np.abs(steps - usual).argmax())
    if abs(steps[worst] - usual) <= UNEVEN * usual * (1 + 1e-6) or _off_line(times) <= ROUNDED * clock:
        return
    fact = f"frames {worst + 1} and {worst + 2} are {steps[worst] * 1000:.3g} ms apart, the others {usual * 1000:.3g} ms"
    lost = round(steps[worst] / usual) - 1
    if lost >= 1 and abs(steps[worst] / usual - lost - 1) < UNEVEN * (lost + 1):
        raise BadInput(f"{name}: lacks {lost} frame{'s' * (lost > 1)}: {fact}; send the whole series again")
    raise BadInput(f"{name}: its frame times vary by more than {UNEVEN:.0%}: {fact}; resample it to even times first")


def _off_line(times: Times) -> float:
    """The farthest that times lie off the straight line, frame by frame, that fits all best: the middle of what is needed."""
    frames = np.arange(len(times))
    rest = times - np.polyval(np.polyfit(frames, times, 1), frames)
    return float(np.ptp(rest)) / 2


def closes(voxels: npt.NDArray[Any]) -> bool:
    """Whether the last frame of (X, Y, slices, frames) is as near the first as frames are to the next: a whole heartbeat."""
    frames = np.moveaxis(voxels, -1, 0)
    if len(frames) < FEWEST_TO_CLOSE:
        return False
    steps = [float(np.abs(after - before).mean()) for before, after in pairwise([*frames, frames[0]])]
    return steps[-1] <= CLOSED * float(np.median(steps[:-1]))
