# SPDX-License-Identifier: Apache-2.0
"""Each slice of a cine as a volume (x, y, t) in a file of its own, and the results back in one cine."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ...errors import BadInput
from ...files import whole
from . import read_cine
from .cine import Cine

nifti: Any = nib  # has no types
MM_A_SECOND = 100.0  # nominal: the third axis of a loop's file is time
LEAST, MOST_MM = 2.0, 50.0  # pixels, so that frames are never taken for finer than the plane; a side that is read at most


def write_loops(cine: Cine, folder: Path, name: str, suffix: str = "cine") -> list[Path]:
    """`{name}-{slice}_{suffix}.nii.gz` for every slice, counted from 1; (x, y, t) in float32."""
    affine = np.diag([*(pixels := _pixels(cine)), _step(cine, pixels), 1.0])
    paths = [folder / f"{case}_{suffix}.nii.gz" for case in loop_names(cine, name)]
    for index, path in enumerate(paths):
        image = nifti.Nifti1Image(np.ascontiguousarray(cine.voxels[:, :, index]), affine)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        with whole(path) as part:
            nifti.save(image, part)
    return paths


def loop_names(cine: Cine, name: str) -> list[str]:
    """Of the cases that the slices of a cine are."""
    return [f"{name}-{index:02d}" for index in range(1, cine.voxels.shape[2] + 1)]


def joined(cine: Cine, paths: Iterable[Path]) -> Cine:
    """What was made of all slices of a cine, on its field of view, with as many frames as there are now."""
    voxels = np.stack([np.asarray(nifti.load(path).dataobj, dtype=np.float32) for path in paths], axis=2)
    finer = np.array(voxels.shape[:2]) / cine.voxels.shape[:2]
    scale = np.diag([*(1 / finer), 1.0, 1.0])
    scale[:2, 3] = (1 / finer - 1) / 2  # edges of pixels stay where they were
    times = _refined(cine.frame_times, voxels.shape[3] // cine.voxels.shape[3])
    return replace(cine, voxels=voxels, affine=cine.affine @ scale, frame_times=times)


def _refined(times: npt.NDArray[np.float64], factor: int) -> npt.NDArray[np.float64]:
    """Every frame cut into `factor`, of which the first begins with it: so that the first of all is at 0 s again."""
    lengths = np.diff(times, append=2 * times[-1] - times[-2]) if len(times) > 1 else np.ones(1)
    return np.concatenate([start + length * np.arange(factor) / factor for start, length in zip(times, lengths, strict=True)])


def _pixels(cine: Cine) -> list[float]:
    return [float(side) for side in np.linalg.norm(cine.affine[:3, :2], axis=0)]


def _step(cine: Cine, pixels: Iterable[float]) -> float:
    """Nominal mm between frames."""
    seconds = float(cine.frame_times[-1]) / max(len(cine.frame_times) - 1, 1)
    return min(max(seconds * MM_A_SECOND, LEAST * max(pixels)), MOST_MM)


def loops(source: str, output: str) -> None:
    """Write the loops of a cine as a data folder, for `train` and `evaluate`."""
    cine = read_cine(source)
    name = Path(source).name.partition(".")[0]
    if not name.isascii():
        raise BadInput(f"{source}: cases would be named after it; give it a name of plain letters")
    paths = write_loops(cine, Path(output), name)
    print(f"{output}: {len(paths)} loops; next: splits.csv there (docs/cine.md), then score-fusion train")
