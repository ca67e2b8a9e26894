# SPDX-License-Identifier: Apache-2.0
"""The 3D network that predicts voxel-wise weights and a residual."""

import torch
from torch import Tensor, nn

from .plane_denoiser import POSITION_CHANNELS
from .presets import size_named
from .unet import UNet


class FusionNet(nn.Module):
    """Fuses the estimates of N members: Eq. 5 and 6 of Zhu et al. 2025.

    Its last convolution starts at zero, so that the untrained fusion is the average of its members.
    residual_scale: lambda of Eq. 6; 1.0 for planes, 0.1 for fusing modalities.
    """

    def __init__(self, conditions: int, members: int, size: str = "compact", *, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.members, self.residual_scale = members, residual_scale
        self.unet = UNet(3, 1 + conditions + POSITION_CHANNELS + members, members, size_named(size).fusion)

    def forward(self, x: Tensor, x_t: Tensor, gamma: Tensor, estimates: Tensor, injected: list[Tensor]) -> Tensor:
        """The fused estimate.

        x: (B, conditions + 4, H, W, D); x_t: (B, 1, H, W, D); gamma: (B,); estimates: (B, N, H, W, D);
        injected: aligned 2D features, one map per level, or nothing. Returns (B, 1, H, W, D).
        """
        raw = self.unet(torch.cat([x_t, x, estimates], dim=1), gamma, injected)[0]
        return self.fuse(estimates, raw)

    def weights(self, raw: Tensor) -> Tensor:
        """Member weights of Eq. 6 from raw channels: `1/N + w_i`, the last one what is missing to 1; (B, N, ...)."""
        free = raw[:, : self.members - 1] + 1.0 / self.members
        return torch.cat([free, 1.0 - free.sum(dim=1, keepdim=True)], dim=1)

    def fuse(self, estimates: Tensor, raw: Tensor) -> Tensor:
        """`sum_i W_i e_i + lambda R`, Eq. 6; the sum runs in float32. (B, N, ...) twice -> (B, 1, ...)."""
        raw = raw.float()
        fused = (self.weights(raw) * estimates.float()).sum(dim=1, keepdim=True)
        return fused + self.residual_scale * raw[:, self.members - 1 :]
