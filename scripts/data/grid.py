# SPDX-License-Identifier: Apache-2.0
"""From the loaded grid to the part worth computing, and from there exactly back to the grid of the source."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from monai.utils.misc import ensure_tuple_rep
from torch import Tensor

from ..measurement.as_scanned import AsScanned
from ..measurement.degradations import Degradation
from ..measurement.intensity import background
from .meta_tensors import RAS, make_volume
from .volumes import orientations
from .within_slices import OWN_SIDES, returned

SMALLEST_CROP = 32
AFFINE_TOLERANCE = 1e-6
BACKGROUND = "background"


class CropToContentd(MapTransform):
    """Crop all keys to where any channel of the first one is not background, plus a voxel, in whole multiples.

    keys: volumes (C, H, W, D) of one grid. degradation: what the first was measured by; the box starts and ends on
    multiples of its `cells` (from the origin, so that blocks stay whole), and has at least 32 voxels a side, as far as the
    volume reaches.
    The affine follows; meta gets `crop_start`, `padded_shape` (three ints each) and `background` (a float,
    of the first channel) for `RestoreGridd`.
    """

    def __init__(
        self, keys: Sequence[str] = ("image", "label"), degradation: Degradation | AsScanned | None = None, *,
        allow_missing_keys: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.degradation = degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop every key by the box of the first."""
        d = dict(data)
        first = d[self.keys[0]]
        box = content_box(first, (1, 1, 1) if self.degradation is None else self.degradation.of(first).cells(first.shape[1:]))
        for key in self.key_iterator(d):
            d[key] = _crop(d[key], box)
        return d


class RestoreGridd(MapTransform):
    """Paste predictions (C, H, W, D) of the crop back, and return them on the source's axes with its exact affine.

    reference_key: the (cropped) input, whose meta was left by `LoadVolumesd` and `CropToContentd`.
    fill: what lies outside the crop, for all keys or one a key: "background" is the reference's, else a number. A volume of
    the whole grid, which was not cropped, is taken as it is. After `ResampleWithinSlicesd` results return to the own pixels.
    The result is a MetaTensor on the source's grid, or for super-resolution on the finer grid with the source's axes.
    Raises ValueError when a prediction has not the size of its reference.
    """

    def __init__(
        self, keys: Sequence[str] = ("pred",), reference_key: str = "image", *,
        fill: str | float | Sequence[str | float] = BACKGROUND, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.reference_key = reference_key
        self.fill = ensure_tuple_rep(fill, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace every prediction by its restored MetaTensor."""
        d = dict(data)
        reference = d[self.reference_key]
        for key, fill in self.key_iterator(d, self.fill):
            outside = float(reference.meta.get("background", reference[0].min())) if fill == BACKGROUND else float(fill)
            d[key] = restore_grid(d[key], reference, fill=outside)
        return d


def content_box(volume: Tensor, multiple: Sequence[int]) -> list[slice]:
    """Three slices around the content of a volume (C, H, W, D)."""
    content = (volume != _around(volume)[:, None, None, None]).any(dim=0)
    if not content.any():
        return [slice(0, side) for side in content.shape]
    return [_span(content.movedim(axis, 0).flatten(1).any(dim=1), multiple[axis]) for axis in range(3)]


def crop_box(image: Tensor) -> tuple[slice, slice, slice]:
    """Where a crop (C, h, w, d) lies in the volume that it was cut from; all of it where nothing was cut."""
    start = getattr(image, "meta", {}).get("crop_start", (0, 0, 0))
    h, w, d = (slice(int(at), int(at) + side) for at, side in zip(start, image.shape[1:], strict=True))
    return h, w, d


def restore_grid(pred: Tensor, reference: MetaTensor, *, fill: float) -> MetaTensor:
    """One prediction (C, H, W, D) of the crop `reference` on the source's axes; see `RestoreGridd`."""
    padded = list(map(int, reference.meta.get("padded_shape", reference.shape[1:])))  # whatever a DataLoader made of them
    own = [*map(int, reference.meta.get(OWN_SIDES, padded[:2])), padded[2]]
    shape, crop = list(pred.shape[1:]), list(reference.shape[1:])
    if shape not in (crop, padded, own):
        raise ValueError(f"prediction {list(pred.shape)} and its reference {list(reference.shape)} differ in size")
    meta = dict(reference.meta)
    voxels = pred.as_tensor() if isinstance(pred, MetaTensor) else pred
    start = list(map(int, meta.pop("crop_start", (0, 0, 0))))
    meta.pop("padded_shape", None), meta.pop("background", None)
    height, width, depth = map(int, meta.pop("grid_shape"))
    full = voxels
    if shape == crop != padded:
        full = voxels.new_full((voxels.shape[0], *padded), fill)
        h, w, d = (slice(at, at + side) for at, side in zip(start, voxels.shape[1:], strict=True))
        full[:, h, w, d] = voxels
    affine = _matrix(reference.affine) @ _shift([-at for at in start])
    if meta.pop(OWN_SIDES, None) is not None:
        full, affine = returned(full, affine, own[:2], padded[:2])
    return _to_source_axes(full[:, :height, :width, :depth], affine, meta)


def _to_source_axes(voxels: Tensor, affine: np.ndarray, meta: dict[Any, Any]) -> MetaTensor:
    """Voxels (C, H, W, D) and their affine, from the axes `axcodes`, RAS by default, on the axes `source_axcodes`."""
    ours, source = (orientations.axcodes2ornt(codes) for codes in (meta.pop("axcodes", RAS), meta["source_axcodes"]))
    turn = orientations.ornt_transform(ours, source)
    affine = affine @ orientations.inv_ornt_aff(turn, voxels.shape[1:])
    turned = voxels.flip([axis + 1 for axis in range(3) if turn[axis, 1] < 0])
    turned = turned.permute(0, *(int(axis) + 1 for axis in np.argsort(turn[:, 0]))).contiguous()
    source_affine = _matrix(meta["source_affine"])
    # The way there and back costs a few bits; on the source's own grid give its affine itself.
    if np.allclose(affine, source_affine, rtol=0, atol=AFFINE_TOLERANCE):
        affine = source_affine
    return make_volume(turned, affine, meta)


def _around(volume: Tensor) -> Tensor:
    """Background of every channel, (C,); that of the first as its loader says, if it does."""
    found = background(torch.as_tensor(volume).as_subclass(Tensor)[None])[0]
    told = getattr(volume, "meta", {}).get(BACKGROUND)
    if told is not None:
        found[0] = float(told)
    return found


def _crop(volume: Tensor, box: Sequence[slice]) -> Tensor:
    h, w, d = box
    if not isinstance(volume, MetaTensor):
        return volume[:, h, w, d].contiguous()
    start = [int(span.start) for span in box]
    around = float(_around(volume[:1])[0])
    meta = {**volume.meta, "crop_start": start, "padded_shape": list(volume.shape[1:]), "background": around}
    voxels = volume.as_tensor()[:, h, w, d].contiguous()
    return make_volume(voxels, _matrix(volume.affine) @ _shift(start), meta)


def _span(occupied: Tensor, multiple: int) -> slice:
    """From the first to the last occupied voxel of an axis (n,), with one more on both sides, in whole multiples.

    The margin keeps some background in every crop, so that its minimum is the minimum of the volume.
    """
    side = len(occupied)
    inside = occupied.nonzero()
    start = max(int(inside[0]) - 1, 0) // multiple * multiple
    stop = min(_round_up(int(inside[-1]) + 2, multiple), side)
    wanted = min(_round_up(SMALLEST_CROP, multiple), side)
    if stop - start < wanted:
        start = max(start - (wanted - (stop - start)) // 2, 0) // multiple * multiple
        start = min(start, (side - wanted) // multiple * multiple)
        stop = max(stop, min(_round_up(start + wanted, multiple), side))
    return slice(start, stop)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _shift(voxels: Sequence[int]) -> np.ndarray:
    shift = np.eye(4)
    shift[:3, 3] = voxels
    return shift


def _matrix(affine: Any) -> np.ndarray:
    return torch.as_tensor(affine).cpu().numpy()
