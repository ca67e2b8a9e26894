# SPDX-License-Identifier: Apache-2.0
"""Training samples as other heads and scanners would have given them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..measurement.channels import ABOVE
from ..measurement.degradations import Degradation
from .random_contrast import bias_field, smooth

GAIN, GAMMA, BIAS = 0.15, 0.25, 0.1  # largest logarithms of gain and gamma, and their standard deviation of a bias field
LOUDEST, BLUR = 0.03, 0.7  # standard deviations of noise, in normalised intensities, and of a blur, in voxels
RARELY = 0.3  # of the samples that change: how many get noise, and how many a blur


class Augmentation(NamedTuple):
    """mirror: share of samples turned left to right; vary: share whose conditions get another gain, gamma, bias, noise or blur.

    measured: conditions, the first ones, that never vary, as the target shares their intensities. turn: share of samples turned
    and mirrored in the plane of the first two axes, and, where the last one closes in a circle, begun anywhere on it;
    degradation: what the first condition is measured by, whose blocks stay whole.
    """

    mirror: float = 0.0
    vary: float = 0.0
    measured: int = 1
    turn: float = 0.0
    degradation: Degradation | None = None

    def mirrored(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, bool]:
        """Whole volumes (C, H, W, D), left and right along H or turned, of which places are taken later; and whether so."""
        if self.turn > 0 and rng.random() < self.turn:
            image, label = self._turned((image, label), rng)
            return image, label, True
        turned = self.mirror > 0 and rng.random() < self.mirror
        return (image.flip(1), label.flip(1), True) if turned else (image, label, False)

    def _turned(self, volumes: Sequence[Tensor], rng: np.random.Generator) -> list[Tensor]:
        height, width, along = (1, 1, 1) if self.degradation is None else self.degradation.factors
        flips = [axis for axis in (1, 2) if rng.random() < 0.5]
        across = height == width and rng.random() < 0.5
        volumes = [volume.flip(flips).transpose(1, 2) if across else volume.flip(flips) for volume in volumes]
        if self.degradation is None or not self.degradation.periodic:
            return volumes
        first = along * int(rng.integers(volumes[0].shape[-1] // along))
        return [volume.roll(first, -1) for volume in volumes]

    def varied(self, conditions: Tensor, rng: np.random.Generator) -> Tensor:
        """Normalised conditions (C, ...) of a sample; background stays."""
        if self.measured >= len(conditions) or self.vary == 0 or rng.random() >= self.vary:
            return conditions
        changed = [_changed(condition, rng) for condition in conditions[self.measured :]]
        return torch.cat([conditions[: self.measured], torch.stack(changed)])


def _changed(condition: Tensor, rng: np.random.Generator) -> Tensor:
    """One of any number of axes, background at -1."""
    volume = condition.float().clamp(min=-1) + 1
    if rng.random() < RARELY:
        volume = smooth(volume, float(rng.uniform(0, BLUR)))
    end = max(float(volume.max()), 1e-6)
    volume = end * (volume / end) ** float(np.exp(rng.uniform(-GAMMA, GAMMA))) * float(np.exp(rng.uniform(-GAIN, GAIN)))
    volume = volume * bias_field(volume.shape, BIAS, rng)
    if rng.random() < RARELY:
        volume = volume + torch.from_numpy(rng.standard_normal(volume.shape, dtype=np.float32)) * rng.uniform(0, LOUDEST)
    return torch.where(condition > ABOVE, volume - 1, condition)
