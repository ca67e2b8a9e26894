# SPDX-License-Identifier: Apache-2.0
"""Cine as NIfTI: the fourth axis is time."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...errors import BadInput
from ...files import whole
from ..provenance import Provenance
from .cine import Cine

SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}  # NIfTI's codes of time: second, millisecond, microsecond


def read_cine(path: str | Path) -> Cine:
    """A 4D NIfTI. Raises BadInput when it is none, or when its fourth axis is not time."""
    try:
        image: Any = nib.load(path)
        voxels = image.get_fdata(dtype=np.float32)
    except Exception as error:  # a damaged file fails in many ways
        raise BadInput(f"{path}: cannot be read as NIfTI ({type(error).__name__}); copy or convert it again") from error
    unit = SECONDS.get(int(image.header["xyzt_units"]) & 56)
    if voxels.ndim != 4 or voxels.shape[3] < 2 or unit is None:
        raise BadInput(f"{path}: holds no frames in time; give a 4D file whose header has the time between frames")
    times = np.arange(voxels.shape[3]) * float(image.header.get_zooms()[3]) * unit
    return Cine(voxels, np.asarray(image.affine, dtype=np.float64), times, True, Path(path))


def write_cine(cine: Cine, like: Cine, path: str | Path, *, provenance: Provenance | None = None) -> None:
    """A 4D NIfTI in float32, whole or not at all."""
    image: Any = nib.Nifti1Image(cine.voxels, cine.affine)
    step = float(np.diff(cine.frame_times).mean()) if len(cine.frame_times) > 1 else 0.0
    image.header.set_zooms((*image.header.get_zooms()[:3], step * 1000))
    image.header.set_xyzt_units("mm", "msec")
    with whole(Path(path)) as part:
        nib.save(image, part)
