# SPDX-License-Identifier: Apache-2.0
"""Intensities between a scanner's arbitrary units and the range that networks see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SPAN = 1.5  # the condition's range maps to [-1, 0.5]: a restored detail may be brighter than any block average
PERCENTILE = 0.999  # of the foreground; a single bright vessel must not set the scale


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


def intensity_range(volume: Tensor) -> IntensityRange:
    """Range of each volume and channel: its minimum, and the 99.9th percentile of what lies above. (B, C, H, W, D)."""
    flat = volume.float().flatten(2)
    low = flat.amin(dim=2)
    high = torch.empty_like(low)
    for index, values in enumerate(flat.flatten(0, 1)):
        above = values[values > low.view(-1)[index]]
        rank = max(int(PERCENTILE * above.numel()), 1)
        high.view(-1)[index] = above.kthvalue(rank).values if above.numel() else low.view(-1)[index] + 1.0
    shape = (*low.shape, 1, 1, 1)
    return IntensityRange(low.view(shape), high.view(shape))
