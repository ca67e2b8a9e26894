# SPDX-License-Identifier: Apache-2.0
"""A 3D denoiser alone, without planes: what the fusion is compared to."""

import torch
from torch import Tensor, nn

from .plane_denoiser import POSITION_CHANNELS
from .presets import size_named
from .unet import UNet


class VolumeDenoiser(nn.Module):
    """The 3D network of Med-DDPM on its own, in the size that the preset gives to the fusion: Palette 3D, U-Net 3D.

    >>> VolumeDenoiser(size="tiny")(torch.zeros(1, 5, 20, 20, 20)).shape
    torch.Size([1, 1, 20, 20, 20])
    """

    def __init__(self, conditions: int = 1, size: str = "compact") -> None:
        super().__init__()
        self.unet = UNet(3, conditions + POSITION_CHANNELS + 1, 1, size_named(size).fusion)

    def forward(self, x: Tensor, x_t: Tensor | None = None, timesteps: Tensor | None = None) -> Tensor:
        """The estimate (epsilon, x_0 or v) for a noisy volume; arguments and result as for `ScoreFusion`."""
        if x_t is None:
            x_t = torch.zeros_like(x[:, :1])
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        injected: list[Tensor] = []
        return self.unet(torch.cat([x, x_t], dim=1), timesteps, injected)[0].float()
