# SPDX-License-Identifier: Apache-2.0
"""Pix2pix: a discriminator beside the networks and trainers that there are."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from ..diffusion import Diffusion
from .batch import NoisyBatch

Pair = Mapping[str, Tensor]


class PairedBatch(NoisyBatch):
    """The `prepare_batch` of an adversarial training: as `NoisyBatch`, but the target is what `PatchAdversary` compares."""

    def __call__(self, batchdata: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        """Batch -> network input, {x: the same, base, label}, (), {x_t, timesteps}."""
        image, _, nothing, noisy = super().__call__(batchdata, device, non_blocking, **kwargs)
        pair = {key: batchdata[key].to(device, non_blocking=non_blocking) for key in ("base", "label")}
        return image, {"x": image, **pair}, nothing, noisy


class PatchAdversary(nn.Module):
    """The loss of pix2pix (Isola et al. 2017, Eq. 4) with its discriminator, which learns a step at every call.

    A discriminator sees network input and image, and judges patches of 70 voxels a side. The generator is any of our
    networks asked once at gamma = 0 (`regression_share` 1). State dict: discriminator and its optimiser, for exact resume.
    diffusion: turns the generator's output into an image; channels: of network input and image; dims: 2 or 3; weight: of L1.
    """

    def __init__(
        self, diffusion: Diffusion, channels: int, *, dims: int = 2, width: int = 64, weight: float = 100.0,
        learning_rate: float = 2.0e-4, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        super().__init__()
        self.diffusion, self.weight = diffusion, weight
        # Batches of pix2pix hold one image, whose batch norm is an instance norm.
        discriminator = PatchDiscriminator(dims, width, channels, norm="INSTANCE")
        self.discriminator = discriminator.to(device)
        self.optimizer = torch.optim.Adam(discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.999))
        self.judge = PatchAdversarialLoss(criterion="bce")

    def forward(self, output: Tensor, pair: Pair) -> Tensor:
        """The generator's loss, a scalar. output: (B, 1, ...) of the generator; pair: as `PairedBatch` gives it."""
        fake = self.image(output, pair["base"])
        self._learn(pair["x"], fake.detach(), pair["label"])
        deceived = self._judged(pair["x"], fake, real=True, learning=False)
        return deceived + self.weight * (fake - pair["label"]).abs().mean()

    def image(self, output: Tensor, base: Tensor) -> Tensor:
        """What the generator means, in intensities."""
        gamma, nothing = torch.zeros(len(output), device=output.device), torch.zeros_like(output)
        return self.diffusion.decode(self.diffusion.x_0(output, nothing, gamma), base)

    def _learn(self, x: Tensor, fake: Tensor, real: Tensor) -> None:
        self.optimizer.zero_grad()
        loss = self._judged(x, fake, real=False, learning=True) + self._judged(x, real, real=True, learning=True)
        (loss / 2).backward()
        self.optimizer.step()

    def _judged(self, x: Tensor, image: Tensor, *, real: bool, learning: bool) -> Tensor:
        patches = self.discriminator(torch.cat([x, image], dim=1))[-1]
        return self.judge(patches, target_is_real=real, for_discriminator=learning)

    def get_extra_state(self) -> Any:
        """The optimiser's."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: Any) -> None:
        """The optimiser's."""
        self.optimizer.load_state_dict(state)
