# SPDX-License-Identifier: Apache-2.0
"""Losses on what a denoiser says."""

from torch import Tensor, nn

LEAST = 0.05  # mean square of a target that counts, where errors are relative: flat patches teach nothing


class NoiseLoss(nn.Module):
    """`l1 * mean |e| + l2 * mean e^2`: plain L2 as in Eq. 2, or 5 and 150 as in the authors' code.

    relative: divide the square errors of each sample by the mean square of its target, so that scans with little contrast count
    as much as others: decibels are wanted of each. planes: what counts the mean loss of a prediction's further channels.
    """

    def __init__(self, l1: float = 0.0, l2: float = 1.0, *, relative: bool = False, planes: float = 0.0) -> None:
        super().__init__()
        self.l1, self.l2, self.relative, self.planes = l1, l2, relative, planes

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B, C, ...) twice -> scalar, computed in float32; with planes the prediction has channels after the target's."""
        count = target.shape[1]
        fused, planes = prediction.split([count, prediction.shape[1] - count], dim=1)
        loss = self._loss(fused, target)
        return loss + self.planes * self._loss(planes, target) if planes.shape[1] else loss

    def _loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        error = prediction.float() - target.float()
        square = error.square().flatten(1).mean(dim=1)
        if self.relative:
            square = square / target.float().square().flatten(1).mean(dim=1).clamp(min=LEAST)
        return self.l1 * error.abs().mean() + self.l2 * square.mean()
