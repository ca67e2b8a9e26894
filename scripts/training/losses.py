# SPDX-License-Identifier: Apache-2.0
"""Losses on what a denoiser says."""

from torch import Tensor, nn


class NoiseLoss(nn.Module):
    """`l1 * mean |e| + l2 * mean e^2`: plain L2 as in Eq. 2, or 5 and 150 as in the authors' code."""

    def __init__(self, l1: float = 0.0, l2: float = 1.0) -> None:
        super().__init__()
        self.l1, self.l2 = l1, l2

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Any two tensors of one shape -> scalar, computed in float32."""
        error = prediction.float() - target.float()
        return self.l1 * error.abs().mean() + self.l2 * error.square().mean()
