# SPDX-License-Identifier: Apache-2.0
"""What several scans of one head are worth: `python -m scripts.experiments.combined_table T1_FOLDER --output OUT`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from ..data.cases import find_cases, first
from ..measurement.joint import project_jointly
from ..running.combine import DAMPING, ITERATIONS, Part, combine, joined, part_of

nifti: Any = nib
Array = npt.NDArray[Any]

THICK, POINTS = 4, 8  # mm, and points that a slice is averaged over
OBLIQUE, MOVED = 8.0, 3.0  # degrees that two of the scans are turned by; mm and degrees of motion that no header tells
NOISE, GAIN = 0.005, 1.3  # of the largest value; of two of the scans
MARGIN = 4  # voxels at the sides that do not count: there the turned scans end
SCANS = {"axial": 2, "coronal": 1, "sagittal": 0}


def simulate(truth: Any, folder: Path, rng: np.random.Generator) -> list[str]:
    """Write three thick scans of a volume, the second and third oblique and moved, by cubic interpolation; their files."""
    voxels, files = truth.get_fdata(dtype=np.float32), []
    middle = truth.affine @ [*(np.array(voxels.shape) - 1) / 2, 1]
    for name, axis in SCANS.items():
        sides = np.array(voxels.shape)
        sides[axis] //= THICK
        grid = truth.affine @ np.diag([float(THICK) if a == axis else 1.0 for a in range(4)])
        if axis != 2:
            grid = _turned(grid, middle, OBLIQUE, rng)
        grid[:3, 3] += (middle - grid @ [*(sides - 1) / 2, 1])[:3]
        place = grid if axis == 2 else _moved(grid, middle, rng)
        scan = np.zeros(sides)
        for point in (np.arange(POINTS) + 0.5) / POINTS - 0.5:
            there = place.copy()
            there[:3, 3] += point * place[:3, axis]
            scan += _taken(voxels, truth.affine, there, sides) / POINTS
        scan += (scan > 0) * rng.normal(0, NOISE * voxels.max(), sides)
        files.append(str(folder / f"{name}.nii.gz"))
        nifti.save(nifti.Nifti1Image((scan.clip(0) * (1 if axis == 2 else GAIN)).astype(np.float32), grid), files[-1])
    return files


def _turned(grid: Array, middle: Array, degrees: float, rng: np.random.Generator) -> Array:
    axis = rng.standard_normal(3)
    turn, around = np.eye(4), np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    around[:3, 3] = middle[:3]
    return np.asarray(around @ turn @ np.linalg.inv(around) @ grid)


def _moved(grid: Array, middle: Array, rng: np.random.Generator) -> Array:
    moved, step = _turned(grid, middle, MOVED, rng), rng.standard_normal(3)
    moved[:3, 3] += MOVED * step / np.linalg.norm(step)
    return moved


def _taken(voxels: Array, affine: Array, place: Array, sides: Array) -> Array:
    way = np.linalg.inv(affine) @ place
    return np.asarray(affine_transform(voxels, way[:3, :3], way[:3, 3], output_shape=tuple(sides), order=3))


def measured(file: str, folder: Path, number: int) -> Mapping[str, float]:
    """PSNR in dB of a subject, on the range of its truth, of what one scan and three give."""
    truth, folder = nifti.as_closest_canonical(nifti.load(file)), folder / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    files = simulate(truth, folder, np.random.default_rng(number))
    combine(files, str(folder / "out"))
    parts: list[Part] = []
    for index in range(1, len(files) + 1):
        parts.append(part_of(index, folder / "out" / "scans" / str(index), parts[0] if parts else None))
    onto, first = parts[0].restored, nifti.load(files[0])
    grid, sides = np.asarray(onto.affine), np.array(onto.shape[1:])
    wanted = _taken(truth.get_fdata(dtype=np.float32), truth.affine, grid, sides)
    inner = tuple(slice(MARGIN, side - MARGIN) for side in sides)

    def psnr(volume: Any) -> float:
        error = float(((np.asarray(volume) - wanted)[inner] ** 2).mean())
        return float(10 * np.log10(float(wanted.max() - wanted.min()) ** 2 / error))

    operators, scans = [part.operator for part in parts], [part.measured for part in parts]
    nothing = project_jointly(torch.zeros(*sides), operators, scans, damping=DAMPING, iterations=3 * ITERATIONS)
    return {
        "one scan, cubic": psnr(_taken(first.get_fdata(dtype=np.float32), first.affine, grid, sides)),
        "one scan, restored": psnr(onto.as_tensor()[0]),
        "three scans, without networks": psnr(nothing),
        "three scans, combined": psnr(joined(parts)),
    }


def main() -> None:
    """A row a subject of the val split, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--output", required=True)
    parser.add_argument("--max-cases", type=int, default=3)
    given = parser.parse_args()
    cases = first(find_cases(given.data, ["t1"], split="val"), given.max_cases)
    rows = [measured(case["image"][0], Path(given.output), number) for number, case in enumerate(cases)]
    print(" | ".join(("subject", *rows[0])))
    for case, row in zip(cases, rows, strict=True):
        print(" | ".join((str(case["case"]), *(f"{value:.2f}" for value in row.values()))))
    print(" | ".join(("mean", *(f"{np.mean([row[key] for row in rows]):.2f}" for key in rows[0]))))


if __name__ == "__main__":
    main()
