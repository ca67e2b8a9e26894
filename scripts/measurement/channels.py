# SPDX-License-Identifier: Apache-2.0
"""What the networks see: conditions, three coordinates and a mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .degradations import Degradation
from .intensity import IntensityRange, intensity_range


def coordinates(shape: Sequence[int], start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> Tensor:
    """Coordinates in [-1, 1] over the full volume, for the patch `size` that begins at `start`; (3, *size)."""
    start = start or [0] * len(shape)
    size = size or shape
    axes = [torch.linspace(-1, 1, full)[first : first + length] for full, first, length in zip(shape, start, size, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


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
    mask = torch.where(_plain(conditions[:, :1], degradation) > -1.0 + 1.0e-6, 1.0, -1.0)
    if degradation is not None:
        conditions = torch.cat([degradation.shown(conditions[:, :1]), conditions[:, 1:]], dim=1)
    return conditions, mask


def _plain(image: Tensor, degradation: Degradation | None) -> Tensor:
    """The same with the first channel free of overshoot."""
    return image if degradation is None else torch.cat([degradation.plain(image[:, :1]), image[:, 1:]], dim=1)


def network_input(conditions: Tensor, mask: Tensor) -> Tensor:
    """Conditions (B, C, H, W, D), coordinates over the whole volume, mask (B, 1, ...): (B, C + 4, H, W, D)."""
    place = coordinates(conditions.shape[2:]).to(conditions).expand(len(conditions), -1, -1, -1, -1)
    return torch.cat([conditions, place, mask], dim=1)
