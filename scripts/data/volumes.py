# SPDX-License-Identifier: Apache-2.0
"""Reading volumes: every file is checked, turned to RAS and laid on one grid, or refused with a line that says why."""

import itertools
import json
import logging
import math
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
from ..measurement.intensity import background, background_alone, far_background
from .dicom import DicomSeries
from .doubts import by, distance_mm
from .formats import stem
from .read import read_file

logger = logging.getLogger(__name__)
orientations: Any = nib.orientations  # has no types

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
        self, keys: Sequence[str] = ("image", "label"), degradation: Degradation | None = None, *, simulate: bool = False,
        masks: Sequence[str] = (), allow_missing_keys: bool = True,
    ) -> None:  # fmt: skip
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
        told = dict.fromkeys(f"{_name(path)}: {line}" for path in files for line in json.loads(loaded[path].meta["doubts"]))
        for line in told:
            logger.warning("case %s: %s", d["case"], line)
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
        d[image_key].meta["doubts"] = json.dumps(list(told))
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

    Meta besides: `xform_codes` (JSON: of sform and qform, for the result) and `doubts` (JSON: lines, see `doubts`).
    Raises BadInput when it is missing, unreadable, damaged, not 3D, smaller than 5 voxels a side, not finite within the head,
    or, unless it may be `constant`, the same everywhere.
    """
    codes, told = (1, 1), list(getattr(source, "doubts", ()))
    if isinstance(source, DicomSeries):
        volume = _read_dicom(source)
    else:
        voxels, header = read_file(Path(source).expanduser())
        volume, codes, told = make_volume(torch.from_numpy(voxels)[None], header.affine, {}), header.codes, [*header.doubts]
    volume, further = _sound(source, volume, constant)
    affine = np.asarray(volume.affine)
    in_ras: Any = Orientation(axcodes="RAS", labels=None)(volume)
    meta = {
        "filename_or_obj": str(source),
        "source_axcodes": "".join(orientations.aff2axcodes(affine)),
        "source_affine": affine,
        "grid_shape": list(in_ras.shape[1:]),
        "xform_codes": json.dumps(codes),
        "doubts": json.dumps([*told, *further]),
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
        fact = f"its {by(measurement.shape[1:])} voxels would become {by(fine)}"
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


def _name(source: str | DicomSeries) -> str:
    return str(source) if isinstance(source, DicomSeries) else Path(source).name


def _dicom_files(volumes: Sequence[MetaTensor]) -> dict[str, str]:
    """Those of all conditions, the first one's first; a string survives the collation of a batch."""
    lists = [json.loads(volume.meta.get("dicom_files", "[]")) for volume in volumes]
    return {"dicom_files": json.dumps(list(itertools.chain(*lists)))} if lists[0] else {}


def _read_dicom(series: DicomSeries) -> MetaTensor:
    from .dicom.find import too_small
    from .dicom.read import read_series  # needs pydicom, which MONAI Label pins to an older version

    return read_series(replace(series, problem=series.problem or too_small(series)))


def _sound(source: str | Path | DicomSeries, volume: MetaTensor, constant: bool) -> tuple[MetaTensor, list[str]]:
    """A volume whose background is a number near its tissue, and what is to be told of it. Raises BadInput for holes."""
    voxels, lines = volume.as_tensor(), []
    outside = voxels.isnan()
    if outside.any():
        if not (background_alone(outside[0]) and voxels[~outside].isfinite().all()):
            raise BadInput(f"{source}: holds NaN or infinite voxels; replace them, for example by the background value")
        value = min(float(voxels[~outside].min()), 0.0)
        voxels = voxels.masked_fill(outside, value)
        lines.append(f"its background is NaN; taken as {value:g}")
    low, high = float(voxels.min()), float(voxels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadInput(f"{source}: holds NaN or infinite voxels; replace them, for example by the background value")
    if low == high and not constant:
        raise BadInput(f"{source}: every voxel is {low:g}; there is nothing to learn from or translate")
    if not constant and (far := far_background(voxels[0])) is not None:
        common, value = far
        voxels = torch.where(voxels == common, value, voxels)
        lines.append(f"its background is {common:g}, far from its tissue; taken as {value:g}")
    return make_volume(voxels, volume.affine, volume.meta), lines


def _check_same_grid(case: str, grid: MetaTensor, volume: MetaTensor, first: MetaTensor) -> None:
    """Raise BadInput unless `volume` lies on `grid`, the (possibly refined) grid of the file `first`."""
    name, other = (Path(v.meta["filename_or_obj"]).name for v in (first, volume))
    remedy = "resample one to the other first (docs/your_data.md#grids)"
    if grid.shape[1:] != volume.shape[1:]:
        refined = "" if grid is first else f" and so {by(grid.shape[1:])} on the fine grid"
        sizes = f"{name} is {by(first.shape[1:])}{refined} but {other} is {by(volume.shape[1:])}"
        raise BadInput(f"case {case}: {sizes}; {remedy}")
    apart = distance_mm(np.asarray(grid.affine), np.asarray(volume.affine), grid.shape[1:])
    if apart > GRID_TOLERANCE_MM:
        raise BadInput(f"case {case}: {name} and {other} lie up to {apart:.3g} mm apart in space; {remedy}")
