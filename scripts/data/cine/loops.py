# SPDX-License-Identifier: Apache-2.0
"""Each slice of a cine as a volume (x, y, t) in a file of its own, and the results back in one cine."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ...errors import BadInput
from ...files import read_json, whole, write_json, write_text
from ..formats import suffix
from . import read_cine
from .cine import Cine
from .variants import varied

nifti: Any = nib  # has no types
MM_A_SECOND = 100.0  # nominal: the third axis of a loop's file is time
SOURCES = ".sources.json"  # beside loops: the cine that each name is of, by checksums of its place and of its voxels
LEAST, MOST_MM = 2.0, 50.0  # pixels, so that frames are never taken for finer than the plane; a side that is read at most


def write_loops(cine: Cine, folder: Path, name: str) -> list[Path]:
    """`{name}-{slice}_cine.nii.gz` for every slice, counted from 1; (x, y, t) in float32."""
    affine = np.diag([*(pixels := _pixels(cine)), _step(cine, pixels), 1.0])
    paths = [folder / f"{case}_cine.nii.gz" for case in loop_names(cine, name)]
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


def claim(folder: Path, name: str, cine: Cine) -> None:
    """Keep of which cine the loops of a name are. Raises BadInput where they are another's: `a_b` and `a-b` are one name."""
    place = str(cine.source.absolute()) if cine.series is None else cine.series.uid
    marks = [hashlib.sha256(what).hexdigest()[:16] for what in (os.fsencode(place), np.ascontiguousarray(cine.voxels).data)]
    owners = read_json(folder / SOURCES) if (folder / SOURCES).is_file() else {}
    if not set(owners.get(name, marks)) & set(marks):
        raise BadInput(f"{name}: results of this name are of another cine; give another output")
    write_json(folder / SOURCES, {**owners, name: marks})


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


def loops(source: str, output: str, *, train: Sequence[int] = (), val: Sequence[int] = (), variants: int = 0) -> None:
    """Write the loops of a cine as a data folder, for `train` and `evaluate`.

    train, val: slices, counted from 1, of these splits; others are in none. variants: how often all slices to train on are
    written once more as another heart might look (`varied`).
    Raises BadInput for slices that there are not, or in both, and for what `claim` refuses.
    """
    cine, name, folder = read_cine(source), name_of(Path(source)), Path(output)
    splits = {case: split for split, slices in (("train", train), ("val", val)) for case in _chosen(cine, name, slices)}
    if len(splits) < len(train) + len(val):
        raise BadInput("--train and --val: a slice stands twice; leave it out of one")
    claim(folder, name, cine)
    write_loops(cine, folder, name)
    rng = np.random.default_rng(0)
    for number in range(1, variants + 1 if train else 1):
        other = varied(replace(cine, voxels=cine.voxels[:, :, [index - 1 for index in train]]), rng)
        write_loops(other, folder, f"{name}-v{number}")
        splits |= dict.fromkeys(loop_names(other, f"{name}-v{number}"), "train")
    if splits:
        write_text(folder / "splits.csv", "\n".join(["case,split", *(",".join(row) for row in splits.items())]) + "\n")
    print(f"{output}: loops of {cine.voxels.shape[2]} slices; next: score-fusion train {output} (docs/cine.md)")


def _chosen(cine: Cine, name: str, slices: Sequence[int]) -> list[str]:
    names = loop_names(cine, name)
    if wrong := [index for index in slices if not 1 <= index <= len(names)]:
        raise BadInput(f"slice {wrong[0]}: there are {len(names)}; count from 1")
    return [names[index - 1] for index in slices]


def name_of(source: Path) -> str:
    """Of the cases of a cine, after its file or folder."""
    return plain(source.name.removesuffix(ending_of(source)))


def plain(name: str) -> str:
    """Letters, digits and hyphens, that cases are sorted and written by."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name).strip("-") or "cine"


def ending_of(source: Path) -> str:
    """The suffix of a file, "" of a folder."""
    return "" if source.is_dir() else suffix(source) or source.suffix
