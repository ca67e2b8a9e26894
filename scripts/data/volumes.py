# SPDX-License-Identifier: Apache-2.0
"""Reading volumes: every file is checked, turned to RAS and laid on one grid, or refused with a line that says why."""

import itertools
import json
import logging
from collections.abc import Hashable, Mapping, Sequence
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
from ..measurement.as_scanned import AsScanned, meta_of
from ..measurement.degradations import Degradation
from ..measurement.intensity import background
from ..measurement.slice_profile import SliceProfile
from ..measurement.slices import thickest
from .advice import Expectation, Plan, plan, ratios_of
from .dicom import DicomSeries
from .formats import stem
from .meta_tensors import grid_of, make_volume, with_axes
from .read import read_source

logger = logging.getLogger(__name__)
orientations: Any = nib.orientations  # has no types

SMALLEST_GRID = 17  # what the networks can halve three times; smaller volumes are padded


Source = str | DicomSeries
Paths = Mapping[Hashable, Sequence[Source]]
Volumes = dict[Source, MetaTensor]


class LoadVolumesd(MapTransform):
    """Load the conditions of a case as channels of one volume, and the target (training only) on the same grid.

    keys: the first holds the conditions, a path or DicomSeries or a list of them, any further one a single path or series.
    They become float32 MetaTensors (C, H, W, D) and (1, H, W, D) in RAS, or in another order of these axes (`axcodes`, as
    "SAR") where the thick slices of the scan lie across another axis than those of the task. Meta: `filename_or_obj` (the first
    file or series), `source_axcodes` (as "LPS"), `source_affine` (4x4 float64, as on disk), `grid_shape` (three ints: the
    output grid before padding), `doubts` (JSON list of lines); from DICOM also `dicom_files` (JSON list, of all conditions).
    degradation: what the first condition is a measurement by. With `simulate` it is measured here from a fine volume,
    after every volume was padded at its far ends, with its own minimum, to a multiple of the factors (and at least 17).
    Without, the file
    is the coarse measurement, and is repeated onto the fine grid, on which all other volumes must already lie. A degradation
    of several `scans` takes as many files, one coarse measurement each, and makes one channel of them; meta `background` tells
    what lies around the head, which the channel itself does not.
    masks: keys of label maps, which alone may be the same everywhere, as where there is no tumour.
    resample: bring volumes of another grid onto that of the first condition by their affines; register: move all others
    rigidly onto the first as well. trained_mm: voxels that the weights saw, 0 for any.
    Raises BadInput when a file is unusable, the task is for other voxels or two grids do not match.
    """

    def __init__(
        self, keys: Sequence[str] = ("image", "label"), degradation: Degradation | AsScanned | None = None, *,
        simulate: bool = False, masks: Sequence[str] = (), resample: bool = False, register: bool = False,
        trained_mm: float = 0.0, allow_missing_keys: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.degradation = degradation
        self.simulate, self.masks = simulate, set(masks)
        self.resample, self.register, self.trained_mm = resample, register, trained_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paths in, volumes out; `case` is filled in from the first file's name when it is absent."""
        d = dict(data)
        image_key = self.keys[0]
        paths = {key: _sources(d[key]) for key in self.key_iterator(d)}
        d.setdefault("case", stem(str(paths[image_key][0])))
        # The simulated condition and the target are often one file: read it once.
        maps = self._maps(paths)
        files = dict.fromkeys(itertools.chain(*paths.values()))
        loaded = {path: read_volume(path, constant=path in maps) for path in files}
        placed, doubts = self._on_one_grid(d["case"], paths, loaded)
        for key, own in paths.items():
            d[key] = self._stack([placed[path] for path in own], degrade=key == image_key)
        for line in doubts:
            logger.warning("case %s: %s", d["case"], line)
        d[image_key].meta["doubts"] = json.dumps(doubts)
        return d

    def _maps(self, paths: Paths) -> set[Source]:
        return {path for key in self.masks & paths.keys() for path in paths[key]}

    def _on_one_grid(self, case: str, paths: Paths, loaded: Volumes) -> tuple[Volumes, list[str]]:
        """All volumes on the fine grid of the first condition, and what is doubtful about that."""
        sources = list(itertools.chain(*paths.values()))  # the conditions come first
        if isinstance(self.degradation, AsScanned) and not self.simulate:
            loaded = {**loaded, sources[0]: laid_out(loaded[sources[0]], self.degradation)}
        scans = self.degradation.scans if isinstance(self.degradation, Degradation) and not self.simulate else []
        expected = Expectation([scan.factors for scan in scans], self.trained_mm, resample=self.resample or self.register)
        way = plan(case, [(str(path), grid_of(loaded[path])) for path in sources], expected)
        placed = {path: with_axes(volume, way.order) for path, volume in loaded.items()}
        for path, scan in zip(sources, scans, strict=False):
            placed[path] = repeat_onto_fine_grid(placed[path], scan)
        lines = self._aligned(placed, sources, way, self._maps(paths)) if way.displaced or self.register else []
        of_files = {path: json.loads(volume.meta.get("doubts", "[]")) for path, volume in loaded.items()}
        # Series name themselves.
        named = {path: "" if isinstance(path, DicomSeries) else f"{Path(path).name}: " for path in loaded}
        told = [f"{named[path]}{line}" for path, doubts in of_files.items() for line in doubts]
        return placed, list(dict.fromkeys([*told, *way.doubts, *lines]))

    def _aligned(self, placed: Volumes, sources: Sequence[Source], way: Plan, maps: set[Source]) -> list[str]:
        """Bring the other volumes onto the grid of the first, in place; a line for each."""
        from .registration import Alignment  # here, because SimpleITK takes a moment to import

        first, scans = placed[sources[0]], 1
        if isinstance(self.degradation, Degradation) and not self.simulate:  # edges of blocks are none of the head
            scans = len(self.degradation.scans)
            first = make_volume(self.degradation.scans[0].interpolate(first.as_tensor()[None])[0], first.affine, first.meta)
        alignment = Alignment(first, register=self.register)
        others = dict.fromkeys(path for path in sources[scans:] if path not in sources[:scans])
        for path in sorted(others, key=lambda path: path in maps):  # a label map moves with the scan it was drawn on
            if self.register or str(path) in way.displaced:
                placed[path] = alignment(placed[path], mask=path in maps)
        return alignment.lines

    def _stack(self, volumes: Sequence[MetaTensor], *, degrade: bool) -> MetaTensor:
        factors: Sequence[int] = (1, 1, 1) if self.degradation is None else self.degradation.factors
        if isinstance(self.degradation, AsScanned) and self.simulate:
            factors = self.degradation.simulated_blocks
        if isinstance(self.degradation, Degradation) and self.degradation.periodic:
            channels = [_padded_beside_circle(volume.as_tensor(), factors) for volume in volumes]
        else:
            channels = [pad_to_multiple(volume.as_tensor(), factors, SMALLEST_GRID) for volume in volumes]
        meta = {**volumes[0].meta, **_dicom_files(volumes)}
        if self.degradation is not None and degrade:
            channels[:1], more = self._measured(channels[: self._scans])
            channels[1 : self._scans] = []
            meta |= more
        return make_volume(torch.cat(channels), volumes[0].affine, meta)

    @property
    def _scans(self) -> int:
        """How many channels are the measurement, one coarse scan each."""
        return 1 if self.degradation is None or self.simulate else len(self.degradation.scans)

    def _measured(self, channels: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
        """The measurement (1, H, W, D) from its scans, or simulated, and what the meta says of it."""
        if isinstance(self.degradation, AsScanned):
            if not self.simulate:
                return list(channels), {}
            operator = self.degradation.on(channels[0].shape[1:])
            return [operator(channels[0])], meta_of(operator.axes)
        assert self.degradation is not None
        joined = self.degradation(channels[0]) if self.simulate else self.degradation.joined(channels)
        several = len(self.degradation.scans) > 1
        return [joined], {"background": float(background(self.degradation.plain(joined)[None]))} if several else {}


def read_volume(source: str | Path | DicomSeries, *, constant: bool = False, loop: bool = False) -> MetaTensor:
    """One file or DICOM series as (1, H, W, D) float32 in RAS, with the meta of `LoadVolumesd`.

    Meta besides: `thickness` (of slices in mm, 0 where the file does not say), `xform_codes` (JSON: of sform and qform, for the
    result), `doubts` (JSON: lines, see `doubts`) and `loop` (whether its last axis is time, as the JSON beside it or the
    caller says).
    Raises BadInput when it is missing, unreadable, damaged, not 3D, smaller than 5 voxels a side, not finite within the head,
    or, unless it may be `constant`, the same everywhere.
    """
    voxels, affine, codes, doubts, thickness, loop = read_source(source, constant=constant, loop=loop)
    volume = make_volume(torch.from_numpy(voxels)[None], affine, {})
    in_ras: Any = Orientation(axcodes="RAS", labels=None)(volume)
    meta = {
        "filename_or_obj": str(source),
        "source_axcodes": "".join(orientations.aff2axcodes(affine)),
        "source_affine": np.asarray(affine, dtype=np.float64),
        "grid_shape": list(in_ras.shape[1:]),
        "thickness": thickness,
        "xform_codes": json.dumps(codes),
        "doubts": json.dumps(doubts),
        "loop": loop,
    }
    if isinstance(source, DicomSeries):
        meta["dicom_files"] = json.dumps(source.files)
    return make_volume(in_ras.as_tensor().contiguous(), in_ras.affine, meta)


def repeat_onto_fine_grid(measurement: MetaTensor, degradation: Degradation) -> MetaTensor:
    """A coarse measurement (C, H, W, D) repeated onto its fine grid (C, f_H H, f_W W, f_D D); voxel edges stay put."""
    fine = grid_of(measurement).refined(degradation.factors)
    voxels = degradation.repeat(measurement.as_tensor())
    return make_volume(voxels, fine.affine, {**measurement.meta, "grid_shape": list(fine.shape)})


def laid_out(scan: MetaTensor, degradation: AsScanned) -> MetaTensor:
    """A scan (1, H, W, D), as read, on the grid of its result as the smallest volume that it measures, thick axis last."""
    name, thickness = _name(scan.meta["filename_or_obj"]), scan.meta.get("thickness")
    # The one axis that is cut into most voxels comes last.
    if (through := thickest(ratios_of(name, grid_of(scan), degradation))) is not None:
        scan = with_axes(scan, [axis for axis in range(3) if axis != through] + [through])
    grid = grid_of(scan)
    fine = grid.refined(ratios_of(name, grid, degradation))
    # Few slices: the networks need a grid of some size, of which the result is cut.
    sampled = degradation.sampling(grid.shape, grid.spacing, thickness)
    axes = [
        axis if axis is None or (more := SMALLEST_GRID - axis.voxels) <= 0 else axis._replace(voxels=SMALLEST_GRID, beyond=more)
        for axis in sampled
    ]
    series = f"{name} " if "dicom_files" in scan.meta else ""
    odd = degradation.doubts(sampled, grid.spacing, thickness)
    doubts = [*json.loads(scan.meta["doubts"]), *(series + line for line in odd)]
    meta = {**scan.meta, "grid_shape": list(fine.shape), "doubts": json.dumps(doubts), **meta_of(axes)}
    return make_volume(SliceProfile(axes).repeat(scan.as_tensor()), fine.affine, meta)


def pad_to_multiple(voxels: Tensor, factors: Sequence[int], least: int = 1) -> Tensor:
    """(C, H, W, D) padded at the end of each axis, with its minimum, to a multiple of the factors of at least `least`."""
    margins = []
    for side, factor in zip(voxels.shape[1:], factors, strict=True):
        wanted = max(side, least)
        margins.append(wanted + -wanted % factor - side)
    pads = [pad for margin in reversed(margins) for pad in (0, margin)]  # torch counts from the last axis
    return torch.nn.functional.pad(voxels, pads, value=float(voxels.min()))


def _padded_beside_circle(voxels: Tensor, factors: Sequence[int]) -> Tensor:
    """As `pad_to_multiple`, but for the last axis, which closes in a circle. Raises BadInput where blocks do not fit on it."""
    if (frames := voxels.shape[-1]) % factors[-1]:
        raise BadInput(f"{frames} frames of a period are no multiple of {factors[-1]}; add --set periodic=False")
    padded = pad_to_multiple(voxels, [*factors[:2], 1], SMALLEST_GRID)
    return padded[..., :frames]


def _sources(value: Any) -> list[str | DicomSeries]:
    several = [value] if isinstance(value, str | Path | DicomSeries) else value
    return [source if isinstance(source, DicomSeries) else str(source) for source in several]


def _name(source: str | DicomSeries) -> str:
    return str(source) if isinstance(source, DicomSeries) else Path(source).name


def _dicom_files(volumes: Sequence[MetaTensor]) -> dict[str, str]:
    """Those of all conditions, the first one's first; a string survives the collation of a batch."""
    lists = [json.loads(volume.meta.get("dicom_files", "[]")) for volume in volumes]
    return {"dicom_files": json.dumps(list(itertools.chain(*lists)))} if lists[0] else {}
