# SPDX-License-Identifier: Apache-2.0
"""How often inputs of many kinds are doubted or refused: `python -m scripts.experiments.unseen_table DATA`."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms.compose import Compose
from nilearn.datasets import load_mni152_template
from scipy import ndimage

from ..data.cases import ERROR, find_cases
from ..running.case_evaluator import TolerantDataset
from ..running.workflow import config_files, load_config, task_config

nifti: Any = nib
TASKS = ("super_resolution", "super_resolution_thick_slice", "translation", "translation_head", "both")
UNLIKE = "unlike all that the weights saw"
FRAMES, NOISES, AIR = (0, 5, 10, 15), 5, 20
Kind = tuple[str, Sequence[Mapping[str, Any]]]  # its name, and of each case the files, by what they are given as


def kinds(data: Path, folder: Path) -> Iterator[Kind]:
    """Every kind of input that `data` holds; volumes that are made or cut out go to `folder`."""
    yield "T1w brains, 1 mm, val", _of(data / "t1", "t1", "val")
    for modality in ("t1ce", "t1", "flair"):
        yield f"glioma brains, 2 mm, val: {modality}", _of(data / "glioma", modality, "val")
    yield "the same brains: flair and t1ce", _both(data / "glioma", "val")
    brains, heads = _of(data / "glioma", "t1ce", "val"), _of(data / "glioma_head", "t1ce")
    yield "the same brains' t1ce, resampled to 1 mm", _changed(brains, _finer, folder, voxel=0.5)
    yield "the same brains' t1ce, upper half alone", _changed(brains, _upper_half, folder)
    yield "T1w whole heads, 1.3 mm", _of(data / "whole_head", "t1")
    for modality in ("t1ce", "flair"):
        yield f"glioma whole heads, thick slices: {modality}", _of(data / "glioma_head", modality)
    yield "the same heads: flair and t1ce", _both(data / "glioma_head")
    yield "the same heads' t1ce, air set to 0", _changed(heads, _without_air, folder)
    yield "DICOM study of a clinic: T1 post", _of(data / "dicom" / "glioma_ge_study", "t1ce")
    average, file = load_mni152_template(resolution=1), folder / "mni152.nii"
    yield "MNI152, an average of T1w brains, 1 mm", [_alone(_write(average.get_fdata(), average.affine, file))]
    cine = nifti.load(data / "cine" / "short_axis_cine.nii.gz")
    voxels = np.asarray(cine.dataobj, dtype=np.float32)
    yield "heart, thick slices", [_alone(_write(voxels[..., one], cine.affine, folder / f"heart{one}.nii")) for one in FRAMES]
    rng = np.random.default_rng(0)
    volumes = [rng.normal(500, 100, (72, 92, 56)).astype(np.float32) for _ in range(NOISES)]
    yield "noise, 2 mm", [_alone(_write(one, np.diag([2, 2, 2, 1]), folder / f"noise{n}.nii")) for n, one in enumerate(volumes)]


def _of(folder: Path, modality: str, split: str = "all") -> list[dict[str, Any]]:
    """Cases of a folder, whose one volume is given to every task that takes one."""
    return [_alone(case["image"][0]) for case in find_cases(folder, [modality], split=split)]


def _both(folder: Path, split: str = "all") -> list[dict[str, Any]]:
    names = ("flair", "t1ce")
    return [dict(zip(names, case["image"], strict=True)) for case in find_cases(folder, names, split=split)]


def _alone(file: Any) -> dict[str, Any]:
    return {"t1": file, "t1ce": file}


def _write(voxels: Any, affine: Any, path: Path) -> str:
    nifti.save(nifti.Nifti1Image(voxels, affine), path)
    return str(path)


def _changed(cases: Sequence[Mapping[str, Any]], change: Any, folder: Path, *, voxel: float = 1) -> list[dict[str, Any]]:
    """Made of the cases' T1ce; voxel: their new size, in old ones."""
    made, scale = [], np.diag([voxel, voxel, voxel, 1])
    for number, image in enumerate(nifti.load(case["t1ce"]) for case in cases):
        voxels = change(np.asarray(image.dataobj, dtype=np.float32))
        made.append(_alone(_write(voxels, image.affine @ scale, folder / f"{change.__name__}{number}.nii")))
    return made


def _finer(voxels: Any) -> Any:
    return ndimage.zoom(voxels, 2, order=1, grid_mode=True, mode="nearest")


def _upper_half(voxels: Any) -> Any:
    return voxels[:, :, voxels.shape[2] // 2 :]


def _without_air(voxels: Any) -> Any:
    """A whole head around which everything is exactly 0."""
    return np.where(ndimage.gaussian_filter(voxels, 1) > AIR, voxels, 0)


def judged(task: str, cases: Sequence[Mapping[str, Any]]) -> tuple[Counter[str], str]:
    """What becomes of cases, by "inside", "doubted", "refused" and "not taken", and one of the lines.

    Scans that are as the task wants them are read as they are; others are fine volumes, of which the scan is simulated.
    """
    counts, lines = Counter[str](), list[str]()
    for workflow in ("inference", "evaluate"):
        config = load_config(config_files(workflow, [task_config(task)]))
        names = config["conditions"]
        entries = [
            {"case": str(number), "image": [case[name] for name in names]}
            for number, case in enumerate(cases)
            if (len(names) > 1) == ("flair" in case) and case.keys() >= set(names)
        ]
        steps = Compose([config.get_parsed_content(f"preprocessing#transforms#{step}") for step in (0, 1)])
        results = list(map(TolerantDataset(entries, steps).__getitem__, range(len(entries))))
        told = [result.get(ERROR, "") for result in results]
        if any(not line or UNLIKE in line for line in told):
            break
    for result, line in zip(results, told, strict=True):
        unseen = [] if line else json.loads(result["image"].meta.get("unseen", "[]"))
        counts["refused" if UNLIKE in line else "not taken" if line else "doubted" if unseen else "inside"] += 1
        lines += [line] if line else unseen
    return counts, lines[0] if lines else ""


def main(data: str) -> None:
    """Print the table, and of every cell one line to standard error."""
    logging.disable(logging.WARNING)
    print(f"| input | n | {' | '.join(TASKS)} |\n|---|---|{'---|' * len(TASKS)}")
    with TemporaryDirectory() as folder:
        for name, cases in kinds(Path(data), Path(folder)):
            cells = []
            for task in TASKS:
                counts, line = judged(task, cases)
                cells.append(" / ".join(str(counts[key]) for key in ("inside", "doubted", "refused")) if counts else "-")
                print(f"{name}, {task}: {dict(counts)} {line}", file=sys.stderr)
            print(f"| {name} | {len(cases)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
