# SPDX-License-Identifier: Apache-2.0
"""Ways to sample with several planes that have not learned to be fused: samplers made of a sampler.

They call `denoise(x_t, gamma, member=i)`, the estimate of one member alone. A step of the sampler within sees nothing of the
steps before it, so a multistep solver is of first order here.
"""

from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from .samplers import Sampler


class Alternating:
    """One member a step, in turn: TPDM of Lee et al. 2023 with the planes' steps evenly mixed.

    sampler: takes the steps; members: how many there are. Each is asked at every `members`-th step.
    """

    def __init__(self, sampler: Sampler, members: int) -> None:
        self.sampler, self.members = sampler, members

    def __call__(self, denoise: Any, x_t: Tensor, gammas: Tensor, *, generator: Generator | None = None) -> Tensor:
        """As every sampler of `scripts.diffusion.samplers`."""
        for step, pair in enumerate(gammas.unfold(0, 2, 1)):
            x_t = self.sampler(partial(denoise, member=step % self.members), x_t, pair, generator=generator)
        return x_t


class AveragedStates:
    """Every member takes each step with noise of its own, and the states are averaged: MADM as published.

    sampler: takes the steps; members: how many there are. Averaging N noisy states divides the variance of the noise that a
    step adds by N; `sample_ddim` adds none, and then this is the average of the estimates.
    """

    def __init__(self, sampler: Sampler, members: int) -> None:
        self.sampler, self.members = sampler, members

    def __call__(self, denoise: Any, x_t: Tensor, gammas: Tensor, *, generator: Generator | None = None) -> Tensor:
        """As every sampler of `scripts.diffusion.samplers`."""
        for pair in gammas.unfold(0, 2, 1):
            said = [partial(denoise, member=index) for index in range(self.members)]
            x_t = torch.stack([self.sampler(alone, x_t, pair, generator=generator) for alone in said]).mean(dim=0)
        return x_t
