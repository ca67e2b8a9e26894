# SPDX-License-Identifier: Apache-2.0
"""A cine as it was read, whatever its format."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Cine:
    """Slices at several times; in the plane as in the file, not turned to RAS.

    voxels: float32 (X, Y, slices, frames). affine: (4, 4), voxel (x, y, slice) to mm in RAS; of a video pixels. frame_times:
    (frames,), s from the first frame on. gated: whether it shows one period, so that the first frame follows the last.
    """

    voxels: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    frame_times: npt.NDArray[np.float64]
    gated: bool
    source: Path
    doubts: tuple[str, ...] = ()
