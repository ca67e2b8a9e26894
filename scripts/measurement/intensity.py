# SPDX-License-Identifier: Apache-2.0
"""Intensities between a scanner's arbitrary units and the range that networks see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SPAN = 1.5  # the condition's range maps to [-1, 0.5]: a restored detail may be brighter than any block average
USUAL, DARKER = 0.5, 0.01  # shares of faces that are background, and of voxels that may lie below it
PERCENTILE = 0.999  # of the foreground; a single bright vessel must not set the scale
TISSUE, MEDIAN = 0.1, 0.64  # share of the bright end that tissue exceeds, and where its median lies, -1 being background


class IntensityRange(NamedTuple):
    """Background and bright end of volumes, each (B, C, 1, 1, 1)."""

    low: Tensor
    high: Tensor

    def normalize(self, volume: Tensor) -> Tensor:
        """Background to -1, bright end to 0.5; (B, C, H, W, D) -> same, float32."""
        return (volume.float() - self.low) * (SPAN / (self.high - self.low)) - 1.0

    def restore(self, volume: Tensor) -> Tensor:
        """Inverse of `normalize`."""
        return (volume.float() + 1.0) * ((self.high - self.low) / SPAN) + self.low

    def of_channel(self, channel: int) -> IntensityRange:
        """The range of one channel alone."""
        return IntensityRange(self.low[:, channel : channel + 1], self.high[:, channel : channel + 1])


# TorchScript compiles the two functions below into the exported sampler; it sees defaults, but no globals.
def background(volume: Tensor, share: float = USUAL, darker: float = DARKER) -> Tensor:
    """What lies around the head: (B, C, H, W, D) -> (B, C).

    The value that most of the volume's six faces have, if next to nothing is darker: resampling leaves single voxels below
    zero. Otherwise, as in a scan with noise up to its edges, the minimum.
    """
    found = torch.empty(volume.shape[:2], device=volume.device)
    for index, one in enumerate(volume.float().flatten(0, 1)):
        faces = _faces(one)
        common = faces.mode().values
        usual = (faces == common).float().mean() > share and (one < common).float().mean() < darker
        found.view(-1)[index] = common if usual else one.min()
    return found


def _faces(volume: Tensor) -> Tensor:
    """Voxels of the six faces of (H, W, D)."""
    return torch.cat([volume.movedim(axis, 0)[[0, -1]].flatten() for axis in range(3)])


def bright_end(volume: Tensor, low: Tensor, share: float = PERCENTILE) -> Tensor:
    """The 99.9th percentile of what lies above the background `low` (B, C): (B, C, H, W, D) -> (B, C)."""
    high = torch.empty_like(low)
    for index, values in enumerate(volume.float().flatten(2).flatten(0, 1)):
        above = values[values > low.view(-1)[index]]
        rank = max(int(share * above.numel()), 1)
        high.view(-1)[index] = above.kthvalue(rank).values if above.numel() else low.view(-1)[index] + 1.0
    return high


def intensity_range(volume: Tensor) -> IntensityRange:
    """Range of each volume and channel (B, C, H, W, D): its background and its bright end."""
    low = background(volume)
    high = bright_end(volume, low)
    shape = (*low.shape, 1, 1, 1)
    return IntensityRange(low.view(shape), high.view(shape))


def tissue_range(volume: Tensor) -> IntensityRange:
    """As `intensity_range`, by the median of tissue, `MEDIAN` above -1, instead of the bright end, which lesions set."""
    low = background(volume)
    least = low + TISSUE * (bright_end(volume, low) - low)
    width = torch.ones_like(low)
    for index, values in enumerate(volume.float().flatten(2).flatten(0, 1)):
        if (tissue := values[values > least.view(-1)[index]]).numel():
            width.view(-1)[index] = (tissue.median() - low.view(-1)[index]) * (SPAN / MEDIAN)
    shape = (*low.shape, 1, 1, 1)
    return IntensityRange(low.view(shape), (low + width).view(shape))
