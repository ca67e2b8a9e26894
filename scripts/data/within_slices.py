# SPDX-License-Identifier: Apache-2.0
"""Axial slices on the pixels that weights saw, and results back on those of the scan."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from torch import Tensor
from torch.nn.functional import interpolate

from .advice import check_axial
from .meta_tensors import grid_of, make_volume

TOLERANCE = 0.1  # pixels that differ by less stay as they are
OWN_SIDES = "own_sides"


class ResampleWithinSlicesd(MapTransform):
    """Bring volumes (C, H, W, D) onto pixels of `mm` along their first two axes; slices stay as and where they are.

    keys: images as `LoadVolumesd` leaves them; mm: 0 for none of it. Pixels within a tenth stay. The affine follows, and
    meta gets `own_sides` (H, W), by which `RestoreGridd` returns results on the scan's own grid.
    Raises BadInput for slices across another axis.
    """

    def __init__(
        self, keys: Sequence[str] = ("image", "label"), mm: float = 0.0, *, allow_missing_keys: bool = True
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.mm = mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace every volume whose pixels are others."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self._resampled(d[key])
        return d

    def _resampled(self, volume: MetaTensor) -> MetaTensor:
        if not self.mm:
            return volume
        spacing = grid_of(volume).spacing
        check_axial(str(volume.meta["filename_or_obj"]), spacing)
        if all(abs(mm / self.mm - 1) < TOLERANCE for mm in spacing[:2]):
            return volume
        before = list(volume.shape[1:3])
        after = [max(round(side * mm / self.mm), 1) for side, mm in zip(before, spacing[:2], strict=True)]
        affine = affine_of_sides(np.asarray(volume.affine), before, after)
        return make_volume(with_sides(volume.as_tensor(), after), affine, {**volume.meta, OWN_SIDES: before})


def with_sides(voxels: Tensor, sides: Sequence[int]) -> Tensor:
    """A volume (C, H, W, D) on the same field with other numbers of pixels (H, W): linear, and where coarser antialiased."""
    resampled = interpolate(voxels.permute(3, 0, 1, 2), list(sides), mode="bilinear", antialias=True)
    return resampled.permute(1, 2, 3, 0).contiguous()


def affine_of_sides(affine: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """The affine (4, 4) of the same field with other numbers of pixels along its first two axes."""
    scale = np.diag([*(old / new for old, new in zip(before, after, strict=True)), 1.0, 1.0])
    scale[:2, 3] = (np.diag(scale)[:2] - 1) / 2  # the corner of the field stays, not the middle of its first voxel
    return np.asarray(affine @ scale)


def returned(voxels: Tensor, affine: np.ndarray, sides: Sequence[Any], working: Sequence[int]) -> tuple[Tensor, np.ndarray]:
    """A result (C, H, W, D), and the affine of its working grid with sides `working`, on the scan's own pixels."""
    own = list(map(int, sides))
    placed = affine_of_sides(affine, working, own)
    return (voxels if list(voxels.shape[1:3]) == own else with_sides(voxels, own)), placed
