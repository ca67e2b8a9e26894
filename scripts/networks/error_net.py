# SPDX-License-Identifier: Apache-2.0
"""A small network that predicts how wrong a result is, from the result and what it was made of."""

import torch
from torch import Tensor, nn

from .blocks import convolution, folded, unfolded

FOLD, WIDTH = 2, 24
REACH = 8  # voxels from which an answer takes something: three convolutions of folded voxels, and whole ones
SLAB = 64  # voxels along the first axis that are computed at once
CALM = -3.0  # logarithm of what it answers before it has learned


class ErrorNet(nn.Module):
    """Half the width of an interval around each voxel.

    inputs: channels, the result and what the networks saw (`normalized_input`). Trained by `experiments.intervals`; three
    convolutions, about 2 % of the arithmetic of a fusion.

    >>> ErrorNet(6)(torch.zeros(1, 6, 9, 8, 7)).shape
    torch.Size([1, 1, 9, 8, 7])
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        cells = FOLD**3
        self.layers = nn.Sequential(
            convolution(3, inputs * cells, WIDTH), nn.SiLU(), convolution(3, WIDTH, WIDTH), nn.SiLU(),
            convolution(3, WIDTH, cells),
        )  # fmt: skip
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.layers[-1].bias, CALM)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, 1, H, W, D), above 0, in the units of the result."""
        return unfolded(self.layers(folded(x, FOLD)), FOLD, list(x.shape[2:])).clamp(-9.0, 1.0).exp()

    @torch.no_grad()
    def whole(self, x: Tensor) -> Tensor:
        """As `forward`, a slab after the other, in little memory."""
        parts = []
        for start in range(0, x.shape[2], SLAB):
            first = max(start - REACH, 0)
            part = self(x[:, :, first : start + SLAB + REACH])
            parts.append(part[:, :, start - first : start - first + SLAB])
        return torch.cat(parts, dim=2)
