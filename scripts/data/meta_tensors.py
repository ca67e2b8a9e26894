# SPDX-License-Identifier: Apache-2.0
"""A volume with its affine as MONAI's MetaTensor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from .advice import Grid

RAS = "RAS"


def make_volume(voxels: Tensor, affine: Tensor | np.ndarray, meta: Mapping[Any, Any]) -> MetaTensor:
    """A MetaTensor of these voxels (C, H, W, D) and affine (4, 4), with a copy of the remaining meta."""
    remaining = {key: value for key, value in meta.items() if key != "affine"}
    return MetaTensor(voxels, affine=torch.as_tensor(affine, dtype=torch.float64), meta=remaining)


def with_axes(volume: MetaTensor, order: Sequence[int]) -> MetaTensor:
    """A volume (C, H, W, D) with its spatial axes in this order; meta `axcodes` and `grid_shape` follow."""
    if list(order) == [0, 1, 2]:
        return volume
    codes, shape = volume.meta.get("axcodes", RAS), volume.meta["grid_shape"]
    meta = {"axcodes": "".join(codes[axis] for axis in order), "grid_shape": [shape[axis] for axis in order]}
    voxels = volume.as_tensor().permute(0, *(axis + 1 for axis in order)).contiguous()
    return make_volume(voxels, volume.affine[:, [*order, 3]], {**volume.meta, **meta})


def in_ras(volume: MetaTensor) -> MetaTensor:
    """As it was before `with_axes`."""
    return with_axes(volume, [volume.meta.get("axcodes", RAS).index(code) for code in RAS])


def grid_of(volume: MetaTensor) -> Grid:
    """Where the voxels of (C, H, W, D) lie."""
    return Grid(np.asarray(volume.affine, dtype=np.float64), tuple(volume.shape[1:]))
