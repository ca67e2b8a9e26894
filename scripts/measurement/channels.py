# SPDX-License-Identifier: Apache-2.0
"""What the networks see: conditions, three coordinates and a mask."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .degradations import Degradation
from .intensity import IntensityRange, intensity_range
from .slices import Slices

ABOVE = -1.0 + 1.0e-6  # normalised: what is more is no background
LACKING = 0.6  # share of the mask that a condition of the same head never lacks
NEAR, FAR = 4.0, 8.0  # voxels: what distances and sizes of slices are told in


def coordinates(shape: Sequence[int], start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> Tensor:
    """Coordinates in [-1, 1] over the full volume, for the patch `size` that begins at `start`; (3, *size)."""
    start = start or [0] * len(shape)
    size = size or shape
    axes = [torch.linspace(-1, 1, full)[first : first + length] for full, first, length in zip(shape, start, size, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def positions(
    shape: Sequence[int], degradation: Degradation | None, start: Sequence[int] | None = None, size: Sequence[int] | None = None
) -> Tensor:
    """Three channels (3, *size) that tell a voxel's place in a volume (H, W, D), of the patch `size` that begins at `start`.

    Coordinates; or, for a degradation whose networks see "slices": the distance to the nearest measured place in `NEAR`
    voxels, and the largest thickness and spacing of any axis in `FAR` voxels.
    """
    if degradation is None or degradation.positions == "coordinates":
        return coordinates(shape, start, size)
    return between_slices(shape, degradation.slices(shape), start, size)


def between_slices(
    shape: Sequence[int], axes: Sequence[Slices | None], start: Sequence[int] | None = None, size: Sequence[int] | None = None
) -> Tensor:
    """The channels of `positions` for slices along each axis of (H, W, D)."""
    start, size = start or [0] * len(shape), size or shape
    squares = [
        torch.zeros(1) if axis is None else torch.from_numpy(axis.distances()[first : first + length]).float() ** 2
        for axis, first, length in zip(axes, start, size, strict=True)
    ]
    distance = (squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]).sqrt() / NEAR
    sizes = [(axis.thickness, axis.spacing) for axis in axes if axis is not None] or [(1.0, 1.0)]
    thickness, spacing = (torch.tensor(max(size)) / FAR for size in zip(*sizes, strict=True))
    return torch.stack([channel.expand(*size) for channel in (distance, thickness, spacing)])


def conditions_and_mask(image: Tensor, degradation: Degradation | None) -> tuple[Tensor, Tensor, IntensityRange]:
    """Normalised conditions (B, C, H, W, D), a +-1 mask of voxels above background (B, 1, ...), and the range.

    image: raw conditions (B, C, H, W, D); where there is a degradation the first one holds the measurement, constant over
    each block, and is returned as the networks see it.
    """
    image = measured(image, degradation)
    scale = intensity_range(_plain(image, degradation))
    return (*normalized(image, scale, degradation), scale)


def measured(image: Tensor, degradation: Degradation | None) -> Tensor:
    """The conditions (B, C, H, W, D) in float32, the first one an exact block average: what follows relies on it."""
    if degradation is None:
        return image.float()
    return torch.cat([degradation(image[:, :1].float()), image[:, 1:].float()], dim=1)


def normalized(image: Tensor, scale: IntensityRange, degradation: Degradation | None) -> tuple[Tensor, Tensor]:
    """Conditions as the networks see them, and the mask; image: as `measured` returns it."""
    conditions = scale.normalize(image)
    first = conditions[:, :1]
    mask = torch.where(first > ABOVE if degradation is None else degradation.foreground(first, ABOVE), 1.0, -1.0)
    if degradation is not None:
        conditions = torch.cat([degradation.shown(conditions[:, :1]), conditions[:, 1:]], dim=1)
    return conditions, mask


def inside(conditions: Tensor, mask: Tensor) -> Tensor:
    """Where a result may be more than background (B, 1, H, W, D), bool.

    In the mask, and not background of any further condition, each of which tells it voxel by voxel: but for holes of less than
    three voxels, which dark tissue has, and unless a condition lacks a large part of the mask, as one of a smaller field does.
    conditions, mask: as of `normalized`.
    """
    if conditions.shape[1] == 1:
        return mask > 0
    head = (mask > 0).to(mask)
    empty = (conditions[:, 1:] <= ABOVE).to(mask)
    lacking = (empty * head).sum(dim=(2, 3, 4), keepdim=True) / head.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1)
    filled = (1 - empty * (lacking < LACKING)).prod(dim=1, keepdim=True)
    outside = F.max_pool3d(1 - F.max_pool3d(filled, 3, 1, 1), 3, 1, 1) * (1 - filled)
    return head * (1 - outside) > 0


def normalized_input(image: Tensor, degradation: Degradation | None) -> tuple[Tensor, Tensor, IntensityRange]:
    """What networks see (B, C + 4, H, W, D) of raw conditions (B, C, H, W, D), mask and range (`conditions_and_mask`)."""
    conditions, mask, scale = conditions_and_mask(image, degradation)
    return network_input(conditions, mask, degradation), mask, scale


def _plain(image: Tensor, degradation: Degradation | None) -> Tensor:
    """The same with the first channel free of overshoot."""
    return image if degradation is None else torch.cat([degradation.plain(image[:, :1]), image[:, 1:]], dim=1)


def network_input(conditions: Tensor, mask: Tensor, degradation: Degradation | None = None) -> Tensor:
    """Conditions (B, C, H, W, D), the `positions` of the whole volume, mask (B, 1, ...): (B, C + 4, H, W, D)."""
    place = positions(conditions.shape[2:], degradation).to(conditions).expand(len(conditions), -1, -1, -1, -1)
    return torch.cat([conditions, place, mask], dim=1)
