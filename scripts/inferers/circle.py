# SPDX-License-Identifier: Apache-2.0
"""Volumes whose last axis closes in a circle, as the time of a gated loop does."""

import torch
from torch import Tensor

from ..measurement.degradations import Degradation

BEYOND = 4  # frames that networks see past each end, at least


def beyond(frames: int, block: int, least: int) -> int:
    """Frames past each end of a loop, in whole blocks, so that there are `least` in all."""
    wanted = max(BEYOND, -(-(least - frames) // 2))
    return -(-wanted // block) * block


def _first(steps: Tensor, levels: Tensor) -> int:
    """Of (T,) the frame with the smallest step; of several, as where a film stands still, by what follows each, so that it is
    the same one whichever frame comes first in a file.
    """
    marks = torch.stack([steps, levels], dim=1)
    tied = [int(frame) for frame in (steps == steps.min()).nonzero()]
    return min(tied, key=lambda frame: marks.roll(-frame, 0).flatten().tolist())


class Circle:
    """Opens volumes (B, C, X, Y, T) where least happens, continues them beyond both ends, and closes what comes of it.

    A network then says the same of a frame whichever one a file begins with: to begin elsewhere changes a result by nothing
    but the same turn. least: frames that an opened volume has.
    """

    def __init__(self, inputs: Tensor, measurement: Degradation, least: int) -> None:
        block, self.frames = measurement.factors[-1], inputs.shape[-1]
        measured = measurement.measure(inputs[:, :1].double())
        steps = (measured - measured.roll(1, -1)).square().mean(dim=(1, 2, 3))  # to a frame from the one before it
        levels = measured.mean(dim=(1, 2, 3))
        self.first = [block * _first(*marks) for marks in zip(steps, levels, strict=True)]
        self.beyond = beyond(self.frames, block, least)

    def opened(self, volumes: Tensor) -> Tensor:
        """(B, C, X, Y, T) -> (B, C, X, Y, beyond + T + beyond)."""
        turned = torch.stack([volume.roll(-first, -1) for volume, first in zip(volumes, self.first, strict=True)])
        index = torch.arange(-self.beyond, self.frames + self.beyond, device=volumes.device) % self.frames
        return turned[..., index]

    def closed(self, volumes: Tensor) -> Tensor:
        """Inverse of `opened`, for any number of channels."""
        inner = volumes.narrow(-1, self.beyond, self.frames)
        return torch.stack([volume.roll(first, -1) for volume, first in zip(inner, self.first, strict=True)])
