# SPDX-License-Identifier: Apache-2.0
"""Writing volumes, as NIfTI and as DICOM."""

import json
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

from ..errors import BadInput
from ..files import remove, whole
from .doubts import FORMS_APART, distance_mm, sides
from .provenance import Provenance
from .specialists import SPECIALIST, Specialist
from .write_behind import hand_on

Nifti1Image: Any = nib.Nifti1Image  # has no types
MAPS, DICOM_SUFFIX = ("uncertainty", "interval"), ".dcm"
REMEDY = "give another output_dir"
SLICE = re.compile(r"\d{4,}\.dcm")  # as `write_series` calls them
LONGEST = 255  # bytes of a file's name, on nearly all file systems


class SaveVolumed(MapTransform):
    """Write volumes as `{output_dir}/{case}/{case}_{suffix}.nii.gz`, float32, in millimetres of the scanner.

    keys: MetaTensors (C, H, W, D); one channel becomes a 3D file, more a 4D one with the channels last. A key that is
    missing is skipped: the uncertainty exists only with several samples, the interval with one step. suffixes: one a key.
    provenance: what made the volumes. With it, those that come from DICOM (meta `dicom_files`, a JSON list of files) are
    written as DICOM too: `{case}/{suffix}/*.dcm` is a derived MR series; `MAPS` are Parametric Maps, as
    `{case}/interval.dcm`. An earlier result is replaced, or removed where there is none now.
    The data get the NIfTI file's path as `{key}_path`. Raises BadInput when `output_dir` cannot be written. Within a
    `WriteBehind` a thread writes, and the volumes must not be changed any more.
    """

    def __init__(
        self, keys: Sequence[str], output_dir: str | Path, *, case_key: str = "case", suffixes: Sequence[str],
        provenance: Provenance | None = None,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys=True)
        if len(self.keys) != len(suffixes):
            raise ValueError(f"{len(self.keys)} keys need as many suffixes, not {list(suffixes)}")
        self.output_dir = Path(output_dir).expanduser()
        self.case_key = case_key
        self.suffixes = tuple(suffixes)
        self.provenance = provenance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key that is there."""
        d = dict(data)
        case = str(d[self.case_key])
        if case != Path(case).name or case.startswith("."):
            raise BadInput(f"case {case}: this is not a file name, so no result can be named after it; rename the case")
        check_output_dir(self.output_dir)
        for key, suffix in zip(self.keys, self.suffixes, strict=True):
            path = self.output_dir / case / f"{case}_{suffix}.nii.gz"
            if key in d and len(os.fsencode(path.name)) > LONGEST:
                raise BadInput(f"case {case}: its results would have names of more than {LONGEST} bytes; rename the case")
            hand_on(case, partial(self._write, d.get(key), path, suffix))
            if key in d:
                d[f"{key}_path"] = str(path)
        return d

    def _write(self, volume: MetaTensor | None, path: Path, suffix: str) -> None:
        if self.provenance is not None:
            write_dicom(volume, path.with_name(suffix + DICOM_SUFFIX * (suffix in MAPS)), self.provenance)
        if volume is not None:
            write_volume(volume, path)
        elif os.path.lexists(path):  # unlike `unlink`, no error for a name that is too long
            path.unlink()  # of an earlier run: it would belong to another result


def check_output_dir(output_dir: str | Path) -> None:
    """Raise BadInput unless results can be written there; creates nothing, so it may be asked before a long run."""
    folder = Path(output_dir).expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise BadInput(f"{output_dir}: {existing} is a file; give a folder as output_dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BadInput(f"{output_dir}: you may not write in {existing}; give another folder as output_dir")


def write_volume(volume: MetaTensor, path: Path) -> None:
    """One volume (C, H, W, D) to one NIfTI file with sform and qform; an older one stays until it is whole."""
    with whole(path, REMEDY) as part:
        nib.save(nifti_image(volume), part)


def write_dicom(volume: MetaTensor | None, path: Path, provenance: Provenance) -> None:
    """A volume (1, H, W, D) to a Parametric Map, if `path` is a .dcm file, else to a folder of an MR series.

    One that is None or comes from NIfTI has no DICOM: what an earlier run left at `path` is removed, and nothing else. Raises
    BadInput where something else is in the way of a series.
    """
    files = [] if volume is None else json.loads(volume.meta.get("dicom_files", "[]"))
    foreign = path.is_dir() and not all(SLICE.fullmatch(entry.name) for entry in path.iterdir())
    if volume is None or not files:
        if not foreign:
            remove(path)
        return
    if foreign:
        raise BadInput(f"{path}: holds files that are no result; give another folder as output_dir")
    if unseen := volume.meta.get("unseen"):
        provenance = replace(provenance, unseen=json.loads(unseen))
    if task := volume.meta.get(SPECIALIST):
        weights = Path(Specialist.of(task).weights)
        provenance = replace(provenance, weights=str(weights), model=weights.stem)
    from .dicom.told import writing
    from .dicom.write import write_parametric_map, write_series  # here: highdicom is not everywhere, and slow to import
    from .dicom.write_pixels import Placed

    if volume.shape[0] != 1:
        raise ValueError(f"a DICOM series holds one channel, not {volume.shape[0]}")
    affine = np.asarray(volume.affine, dtype=np.float64)
    placed = Placed(_channels_last(volume)[..., 0], affine, np.asarray(volume.meta.get("source_affine", affine)))
    write = partial(write_parametric_map, quantity=path.stem) if path.suffix == DICOM_SUFFIX else write_series
    with whole(path, REMEDY) as part, writing():
        write(placed, part, files, provenance)


def nifti_image(volume: MetaTensor) -> Any:
    """A volume (C, H, W, D) as a float32 NIfTI image in mm, with the form codes of its source; several channels come last."""
    channels_last = _channels_last(volume)
    voxels = channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last
    return placed_image(
        voxels, np.asarray(volume.affine, dtype=np.float64), json.loads(volume.meta.get("xform_codes", "[1, 1]"))
    )


def placed_image(voxels: npt.NDArray[np.float32], affine: npt.NDArray[np.float64], codes: Sequence[int]) -> Any:
    """Voxels (H, W, D, ...) as a NIfTI image in mm; codes: of sform and qform, where the latter can say the affine."""
    image = Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.set_sform(affine, code=codes[0])
    image.set_qform(affine, code=codes[1])
    if distance_mm(image.get_qform(), affine, voxels.shape[:3]) > FORMS_APART * sides(affine).min():  # it cannot say a shear
        image.set_qform(affine, code=0)
    image.header.set_xyzt_units("mm")
    return image


def _channels_last(volume: MetaTensor) -> npt.NDArray[np.float32]:
    """(C, H, W, D) -> (H, W, D, C)."""
    return volume.as_tensor().detach().cpu().to(torch.float32).movedim(0, -1).numpy()
