# SPDX-License-Identifier: Apache-2.0
"""Reading volumes: every file is checked, turned to RAS and laid on one grid, or refused with a line that says why."""

import itertools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation
from monai.transforms.transform import MapTransform
from torch import Tensor

from ..errors import BadInput
from ..measurement.degradations import Degradation
from ..measurement.intensity import background
from .dicom import DicomSeries
from .formats import format_of, stem

orientations: Any = nib.orientations  # has no types

SMALLEST_SIDE = 5
SMALLEST_GRID = 17  # what the networks can halve three times; smaller volumes are padded
LARGEST_SIDE = 640  # of a fine grid; a scan that is fine already would ask for terabytes
GRID_TOLERANCE_MM = 1e-3


class LoadVolumesd(MapTransform):
    """Load the conditions of a case as channels of one volume, and the target (training only) on the same grid.

    keys: the first holds the conditions, a path or DicomSeries or a list of them, any further one a single path or series.
    They become float32 MetaTensors (C, H, W, D) and (1, H, W, D) in RAS. Meta: `filename_or_obj` (the first file or
    series), `source_axcodes` (as "LPS"), `source_affine` (4x4 float64, as on disk), `grid_shape` (three ints: the RAS
    output grid before padding); from DICOM also `dicom_files` (JSON list of the conditions' files).
    degradation: what the first condition is a measurement by. With `simulate` it is measured here from a fine volume,
    after every volume was padded at its far ends, with its own minimum, to a multiple of the factors (and at least 17).
    Without, the file
    is the coarse measurement, and is repeated onto the fine grid, on which all other volumes must already lie. A degradation
    of several `scans` takes as many files, one coarse measurement each, and makes one channel of them; meta `background` tells
    what lies around the head, which the channel itself does not.
    masks: keys of label maps, which alone may be the same everywhere, as where there is no tumour.
    Raises BadInput when a file is unusable or two grids do not match.
    """

    def __init__(
        self,
        keys: Sequence[str] = ("image", "label"),
        degradation: Degradation | None = None,
        *,
        simulate: bool = False,
        masks: Sequence[str] = (),
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.degradation = degradation
        self.simulate, self.masks = simulate, set(masks)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paths in, volumes out; `case` is filled in from the first file's name when it is absent."""
        d = dict(data)
        image_key = self.keys[0]
        paths = {key: _sources(d[key]) for key in self.key_iterator(d)}
        d.setdefault("case", stem(str(paths[image_key][0])))
        # The simulated condition and the target are often one file: read it once.
        maps = {path for key in self.masks & paths.keys() for path in paths[key]}
        files = dict.fromkeys(itertools.chain(*paths.values()))
        loaded = {path: read_volume(path, constant=path in maps) for path in files}
        first = loaded[paths[image_key][0]]
        volumes = {key: [loaded[path] for path in own] for key, own in paths.items()}
        if self.degradation is not None and not self.simulate:
            scans = self.degradation.scans
            if len(volumes[image_key]) < len(scans):
                raise BadInput(f"case {d['case']}: {len(scans)} scans are needed; name them all in --conditions")
            coarse = zip(volumes[image_key], scans, strict=False)  # conditions of other contrasts follow the scans
            volumes[image_key][: len(scans)] = [repeat_onto_fine_grid(volume, scan) for volume, scan in coarse]
        grid = volumes[image_key][0]
        for key, on_grid in volumes.items():
            for volume in on_grid:
                _check_same_grid(d["case"], grid, volume, first)
            d[key] = self._stack(on_grid, degrade=key == image_key)
        return d

    def _stack(self, volumes: Sequence[MetaTensor], *, degrade: bool) -> MetaTensor:
        factors = (1, 1, 1) if self.degradation is None else self.degradation.factors
        channels = [pad_to_multiple(volume.as_tensor(), factors, SMALLEST_GRID) for volume in volumes]
        meta = {**volumes[0].meta, **_dicom_files(volumes)}
        if self.degradation is not None and degrade:
            count = 1 if self.simulate else len(self.degradation.scans)
            joined = self.degradation(channels[0]) if self.simulate else self.degradation.joined(channels[:count])
            channels[:count] = [joined]
            if len(self.degradation.scans) > 1:
                meta["background"] = float(background(self.degradation.plain(joined)[None]))
        return make_volume(torch.cat(channels), volumes[0].affine, meta)


def read_volume(source: str | Path | DicomSeries, *, constant: bool = False) -> MetaTensor:
    """One file or DICOM series as (1, H, W, D) float32 in RAS, with the meta of `LoadVolumesd`.

    Raises BadInput when it is missing, unreadable, not 3D, smaller than 5 voxels a side, not finite, or, unless it may be
    `constant`, the same everywhere.
    """
    volume = _read_dicom(source) if isinstance(source, DicomSeries) else _read_file(Path(source).expanduser())
    _check_values(source, volume, constant)
    affine = np.asarray(volume.affine)
    in_ras: Any = Orientation(axcodes="RAS", labels=None)(volume)
    meta = {
        "filename_or_obj": str(source),
        "source_axcodes": "".join(orientations.aff2axcodes(affine)),
        "source_affine": affine,
        "grid_shape": list(in_ras.shape[1:]),
    }
    if isinstance(source, DicomSeries):
        meta["dicom_files"] = json.dumps(source.files)
    return make_volume(in_ras.as_tensor().contiguous(), in_ras.affine, meta)


def make_volume(voxels: Tensor, affine: Tensor | np.ndarray, meta: Mapping[Any, Any]) -> MetaTensor:
    """A MetaTensor of these voxels (C, H, W, D) and affine (4, 4), with a copy of the remaining meta."""
    remaining = {key: value for key, value in meta.items() if key != "affine"}
    return MetaTensor(voxels, affine=torch.as_tensor(affine, dtype=torch.float64), meta=remaining)


def repeat_onto_fine_grid(measurement: MetaTensor, degradation: Degradation) -> MetaTensor:
    """A coarse measurement (C, H, W, D) repeated onto its fine grid (C, f_H H, f_W W, f_D D); voxel edges stay put."""
    fine = [side * factor for side, factor in zip(measurement.shape[1:], degradation.factors, strict=True)]
    if max(fine) > LARGEST_SIDE:
        fact = f"its {_by(measurement.shape[1:])} voxels would become {_by(fine)}"
        raise BadInput(f"{measurement.meta['filename_or_obj']}: {fact}; it is fine already, or give a smaller --block")
    factors = np.array(degradation.factors, dtype=np.float64)
    coarse_from_fine = np.diag([*(1 / factors), 1.0])
    coarse_from_fine[:3, 3] = (1 / factors - 1) / 2
    voxels = degradation.repeat(measurement.as_tensor())
    affine = np.asarray(measurement.affine) @ coarse_from_fine
    return make_volume(voxels, affine, {**measurement.meta, "grid_shape": list(voxels.shape[1:])})


def pad_to_multiple(voxels: Tensor, factors: Sequence[int], least: int = 1) -> Tensor:
    """(C, H, W, D) padded at the end of each axis, with its minimum, to a multiple of the factors of at least `least`."""
    margins = []
    for side, factor in zip(voxels.shape[1:], factors, strict=True):
        wanted = max(side, least)
        margins.append(wanted + -wanted % factor - side)
    pads = [pad for margin in reversed(margins) for pad in (0, margin)]  # torch counts from the last axis
    return torch.nn.functional.pad(voxels, pads, value=float(voxels.min()))


def _sources(value: Any) -> list[str | DicomSeries]:
    several = [value] if isinstance(value, str | Path | DicomSeries) else value
    return [source if isinstance(source, DicomSeries) else str(source) for source in several]


def _dicom_files(volumes: Sequence[MetaTensor]) -> dict[str, str]:
    """Those of all conditions, the first one's first; a string survives the collation of a batch."""
    lists = [json.loads(volume.meta.get("dicom_files", "[]")) for volume in volumes]
    return {"dicom_files": json.dumps(list(itertools.chain(*lists)))} if lists[0] else {}


def _read_dicom(series: DicomSeries) -> MetaTensor:
    from .dicom.find import too_small
    from .dicom.read import read_series  # needs pydicom, which MONAI Label pins to an older version

    return read_series(replace(series, problem=series.problem or too_small(series)))


def _read_file(file: Path) -> MetaTensor:
    image, affine, shape = _opened(file)
    try:
        voxels = np.asanyarray(image.dataobj).astype(np.float32).reshape(shape)
    except Exception as error:  # a truncated file fails in as many ways as there are compressions
        raise _unreadable(file, error) from error
    return make_volume(torch.from_numpy(voxels)[None], affine, {})


def _unreadable(file: Path, error: Exception) -> BadInput:
    reason = str(error).strip().splitlines()[-1:] or [""]
    fact = f"cannot be read as {format_of(file).name} ({type(error).__name__}: {reason[0][:120]})"
    return BadInput(f"{file}: {fact}; copy or convert it again")


def checked_header(file: Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine (4, 4) float64 and shape (H, W, D) of a file. Raises BadInput unless they promise a usable volume."""
    return _opened(file)[1:]


def _opened(file: Path) -> tuple[Any, np.ndarray, tuple[int, ...]]:
    """The image as its format opens it, its affine and shape."""
    if not file.is_file():
        raise BadInput(f"{file}: there is no such file; check dataset_dir or the datalist")
    opened = format_of(file).open
    try:
        image = opened(file)
        affine, shape, dtype = np.array(image.affine, dtype=np.float64), list(image.shape), image.get_data_dtype()
    except Exception as error:
        raise _unreadable(file, error) from error
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3:
        raise BadInput(f"{file}: is {_by(shape)} and so not a 3D volume; give one volume a file")
    if min(shape) < SMALLEST_SIDE:
        raise BadInput(f"{file}: is {_by(shape)}, but a volume needs at least {SMALLEST_SIDE} voxels a side")
    if dtype.kind not in "biuf":
        raise BadInput(f"{file}: holds {dtype} values; convert it to one real number a voxel")
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise BadInput(f"{file}: its affine does not place the voxels in space; repair sform or qform in the header")
    return image, affine, tuple(shape)


def _check_values(file: str | Path | DicomSeries, volume: Tensor, constant: bool) -> None:
    low, high = float(volume.min()), float(volume.max())
    if not torch.isfinite(volume).all():
        raise BadInput(f"{file}: holds NaN or infinite voxels; replace them, for example by the background value")
    if low == high and not constant:
        raise BadInput(f"{file}: every voxel is {low:g}; there is nothing to learn from or translate")


def _check_same_grid(case: str, grid: MetaTensor, volume: MetaTensor, first: MetaTensor) -> None:
    """Raise BadInput unless `volume` lies on `grid`, the (possibly refined) grid of the file `first`."""
    name, other = (Path(v.meta["filename_or_obj"]).name for v in (first, volume))
    remedy = "resample one to the other first (docs/your_data.md#grids)"
    if grid.shape[1:] != volume.shape[1:]:
        refined = "" if grid is first else f" and so {_by(grid.shape[1:])} on the fine grid"
        sizes = f"{name} is {_by(first.shape[1:])}{refined} but {other} is {_by(volume.shape[1:])}"
        raise BadInput(f"case {case}: {sizes}; {remedy}")
    apart = float((_corners(grid) - _corners(volume)).norm(dim=0).max())
    if apart > GRID_TOLERANCE_MM:
        raise BadInput(f"case {case}: {name} and {other} lie up to {apart:.3g} mm apart in space; {remedy}")


def _corners(volume: MetaTensor) -> Tensor:
    """World coordinates (4, 8) in mm of the centres of the eight corner voxels."""
    corners = itertools.product(*((0, side - 1) for side in volume.shape[1:]))
    return volume.affine @ torch.tensor([(*corner, 1) for corner in corners], dtype=torch.float64).T


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
