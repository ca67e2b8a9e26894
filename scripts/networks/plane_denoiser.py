# SPDX-License-Identifier: Apache-2.0
"""The 2D (or 2.5D) denoiser of one plane."""

import torch
from torch import Tensor, nn

from ..errors import BadInput
from .presets import size_named
from .unet import UNet

POSITION_CHANNELS = 4  # three coordinates and the mask


class PlaneDenoiser(nn.Module):
    """Denoises slices of one plane: Eq. 3 of Zhu et al. 2025.

    conditions: given volumes; slab: neighbouring condition slices, 1 for 2D and 5 for the paper's 2.5D.
    Input channels: `slab` groups of conditions (from the lowest slice up), coordinates and mask of the centre slice.
    """

    def __init__(self, conditions: int = 1, size: str = "compact", *, slab: int = 1) -> None:
        super().__init__()
        if slab % 2 == 0:
            raise BadInput(f"slab must be odd, so that it has a centre slice, not {slab}")
        self.conditions, self.slab = conditions, slab
        self.unet = UNet(2, conditions * slab + POSITION_CHANNELS + 1, 1, size_named(size).plane)

    def forward(self, x: Tensor, x_t: Tensor | None = None, timesteps: Tensor | None = None) -> Tensor:
        """The network's estimate (epsilon, x_0 or v) for noisy slices.

        x: (B, conditions * slab + 4, H, W); x_t: (B, 1, H, W), zeros when not given; timesteps: the noise level gamma,
        (B,), zeros (pure noise) when not given. Returns (B, 1, H, W).
        """
        return self.denoise(x, x_t, timesteps)[0]

    def denoise(self, x: Tensor, x_t: Tensor | None, timesteps: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, and the decoder's feature maps, finest first: (B, C_l, H / 2^l, W / 2^l)."""
        if x_t is None:
            x_t = torch.zeros_like(x[:, :1])
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        injected: list[Tensor] = []
        return self.unet(torch.cat([x, x_t], dim=1), timesteps, injected)
