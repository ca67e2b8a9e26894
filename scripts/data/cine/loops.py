# SPDX-License-Identifier: Apache-2.0
"""Each slice of a cine as a volume (x, y, t) in a file of its own, and the results back in one cine."""

import csv
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ...errors import BadInput
from ...files import read_json, whole, write_json, write_text
from ...measurement.task import LOOP
from ..formats import suffix
from ..identifiers import hide, words_of
from ..read import sidecar
from . import read_cine
from .cine import Cine, slices_with_content
from .variants import bright_part, varied

logger = logging.getLogger(__name__)
nifti: Any = nib  # has no types
MM_A_SECOND = 100.0  # nominal: the third axis of a loop's file is time
SOURCES = ".sources.json"  # beside loops: the cine that each name is of, by checksums of its place and of its voxels
LEAST, MOST_MM = 2.0, 50.0  # pixels, so that frames are never taken for finer than the plane; a side that is read at most
COLUMNS = ["case", "split"]
OPEN = "has two ends in time, which only --set periodic=False keeps apart"


def write_loops(cine: Cine, folder: Path, name: str, doubts: Sequence[str] = ()) -> list[Path]:
    """`{name}-{slice}_cine.nii.gz` for every slice with content, counted from 1; (x, y, t) in float32. doubts: of each."""
    affine = np.diag([*(pixels := _pixels(cine)), _step(cine, pixels), 1.0])
    paths = [folder / f"{case}_cine.nii.gz" for case in loop_names(cine, name)]
    for index, path in zip(slices_with_content(cine.voxels), paths, strict=True):
        image = nifti.Nifti1Image(np.ascontiguousarray(cine.voxels[:, :, index]), affine)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        with whole(path) as part:
            nifti.save(image, part)
        mark(path, doubts)
    return paths


def mark(path: Path, doubts: Sequence[str] = ()) -> None:
    """Say beside a volume that its third axis is time, and what is doubted of it: whoever reads it takes it for no head."""
    write_json(sidecar(path), {"axes": LOOP, "doubts": [*doubts]})


def told(cine: Cine) -> list[str]:
    """Its doubts for all to see: of DICOM without ID and date."""
    words = set() if cine.series is None else words_of({"": [cine.series]})
    return [hide(line, words) for line in cine.doubts]


def loop_names(cine: Cine, name: str) -> list[str]:
    """Of the cases that the slices of a cine are; a slice of one value alone is none."""
    return [f"{name}-{index + 1:02d}" for index in slices_with_content(cine.voxels)]


def claim(folder: Path, name: str, cine: Cine, variants: Sequence[str] = ()) -> set[str]:
    """Keep of which cine the loops of a name are, and of those of its variants; returns the names there of others.

    Raises BadInput where they are another's: `a_b` and `a-b` are one name.
    """
    names = [name, *variants]
    place = str(cine.source.absolute()) if cine.series is None else cine.series.uid
    marks = [hashlib.sha256(what).hexdigest()[:16] for what in (os.fsencode(place), np.ascontiguousarray(cine.voxels).data)]
    owners = read_json(folder / SOURCES) if (folder / SOURCES).is_file() else {}
    others = {own for own, known in owners.items() if not set(known) & set(marks)}
    if taken := [own for own in names if own in others]:
        raise BadInput(f"{taken[0]}: results of this name are of another cine; give another output")
    write_json(folder / SOURCES, {**owners, **dict.fromkeys(names, marks)})
    return others


def joined(cine: Cine, paths: Iterable[Path]) -> Cine:
    """What was made of all slices of a cine with content, on its field of view, with as many frames as there are now; slices
    without stay as they are.
    """
    results = [np.asarray(nifti.load(path).dataobj, dtype=np.float32) for path in paths]
    made = dict(zip(slices_with_content(cine.voxels), results, strict=True))
    slices = range(cine.voxels.shape[2])
    empty = {k: np.full_like(results[0], cine.voxels[0, 0, k, 0]) for k in slices if k not in made}
    voxels = np.stack([(made | empty)[k] for k in slices], axis=2)
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
    """Write the loops of a cine as a data folder, for `train` and `evaluate`; those of other cines stay there.

    train, val: slices, counted from 1, of these splits; others are in none. variants: how often all slices to train on are
    written once more as another heart might look (`varied`).
    Raises BadInput for slices that there are not, without content, or in both, for what `claim` and `varied` refuse, and for a
    splits.csv of other columns.
    """
    cine, name, folder = read_cine(source), name_of(Path(source)), Path(output)
    splits = {case: split for split, slices in (("train", train), ("val", val)) for case in _chosen(cine, name, slices)}
    if len(splits) < len(train) + len(val):
        raise BadInput("--train and --val: a slice stands twice; leave it out of one")
    of_variants = [f"{name}-v{number}" for number in range(1, variants + 1 if train else 1)]
    chosen = replace(cine, voxels=cine.voxels[:, :, [index - 1 for index in train]])
    if of_variants:
        bright_part(chosen)  # before anything is written
    before = _rows(folder / "splits.csv")
    others = claim(folder, name, cine, of_variants)
    for doubt in (doubts := told(cine)):
        logger.warning(f"{source}: {doubt}")
    doubts += [] if cine.gated else [OPEN]
    write_loops(cine, folder, name, doubts)
    rng = np.random.default_rng(0)
    for own in of_variants:
        other = varied(chosen, rng)
        write_loops(other, folder, own, doubts)
        splits |= dict.fromkeys(loop_names(other, own), "train")
    kept = [row for row in before if not _is_of(row[0], name) or row[0].rpartition("-")[0] in others]
    if rows := [*kept, *splits.items()]:
        write_text(folder / "splits.csv", "\n".join(",".join(row) for row in [COLUMNS, *rows]) + "\n")
    how = "" if cine.gated else " --set periodic=False"
    print(f"{output}: loops of {cine.voxels.shape[2]} slices; next: score-fusion train {output}{how} (docs/cine.md)")


def _chosen(cine: Cine, name: str, slices: Sequence[int]) -> list[str]:
    count, names = cine.voxels.shape[2], dict(zip(slices_with_content(cine.voxels), loop_names(cine, name), strict=True))
    if wrong := [index for index in slices if not 1 <= index <= count]:
        raise BadInput(f"slice {wrong[0]}: there are {count}; count from 1")
    if empty := [index for index in slices if index - 1 not in names]:
        raise BadInput(f"slice {empty[0]}: holds a single value, of which nothing can be learned; leave it out")
    return [names[index - 1] for index in slices]


def _rows(table: Path) -> list[list[str]]:
    """Of a splits.csv as `loops` writes it, none where there is no such file."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [COLUMNS]
    if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise BadInput(f"{table}: has other columns than {' and '.join(COLUMNS)}; give another output, or move it away")
    return rows


def _is_of(case: str, name: str) -> bool:
    """Whether a case may be a slice, or the variant of one, of the cine of a name."""
    return re.fullmatch(rf"{re.escape(name)}(-v\d+)?-\d+", case) is not None


def name_of(source: Path) -> str:
    """Of the cases of a cine, after its file or folder."""
    return plain(source.name.removesuffix(ending_of(source)))


def plain(name: str) -> str:
    """Letters, digits and hyphens, that cases are sorted and written by."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name).strip("-") or "cine"


def ending_of(source: Path) -> str:
    """The suffix of a file, "" of a folder."""
    return "" if source.is_dir() else suffix(source) or source.suffix
