# SPDX-License-Identifier: Apache-2.0
"""Two members that know different Gaussians: what comes out of either rule follows from the recursion of its steps."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from scripts.diffusion import Alternating, AveragedStates, NoiseSchedule, sample_ancestral, sample_ddim

VOXELS = 40_000


class Members:
    """E[x_0 | x_t] of voxels that are N(m, s^2), with an m and s for each member; notes who is asked."""

    def __init__(self, rng, count=2):
        self.m, self.s, self.asked = rng.uniform(-1, 1, count), rng.uniform(0.3, 1.2, count), []

    def line(self, gamma, member):
        slope = self.s[member] ** 2 * np.sqrt(gamma) / (gamma * self.s[member] ** 2 + 1 - gamma)
        return slope, self.m[member] * (1 - slope * np.sqrt(gamma))

    def __call__(self, x_t, gamma, member):
        self.asked.append(member)
        slope, offset = self.line(gamma, member)
        return slope * x_t + offset


def posterior(gamma, gamma_next):
    """q(x_next | x_t, x_0) by adding precisions: factors of x_t and x_0, variance."""
    if gamma_next == 1:
        return 0.0, 1.0, 0.0
    alpha = gamma / gamma_next
    variance = 1 / (alpha / (1 - alpha) + 1 / (1 - gamma_next))
    return variance * np.sqrt(alpha) / (1 - alpha), variance * np.sqrt(gamma_next) / (1 - gamma_next), variance


def draw(sampler, members, gammas, seed):
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randn(1, 1, VOXELS, 1, 1, generator=generator).double()
    return sampler(members, x_t, gammas, generator=generator)


@pytest.mark.parametrize("averaged", [False, True], ids=["alternating", "averaged states"])
def test_ancestral_steps_come_out_as_the_recursion_says(averaged, seed, rng):
    members, gammas = Members(rng), NoiseSchedule("cosine").steps(7)
    mean, variance = 0.0, 1.0
    for step, (gamma, gamma_next) in enumerate(pairwise(gammas.double().tolist())):
        of_x_t, of_x_0, added = posterior(gamma, gamma_next)
        lines = [members.line(gamma, member) for member in ((0, 1) if averaged else (step % 2,))]
        slope, offset = np.mean(lines, axis=0)
        mean = (of_x_t + of_x_0 * slope) * mean + of_x_0 * offset
        # N members with noise of their own: the mean of N draws has 1/N of their variance
        variance = (of_x_t + of_x_0 * slope) ** 2 * variance + added / len(lines)
    rule = AveragedStates if averaged else Alternating
    result = draw(rule(sample_ancestral, 2), members, gammas, seed)
    std = np.sqrt(variance)
    assert result.mean().item() == pytest.approx(mean, abs=5 * std / VOXELS**0.5)  # five standard errors
    assert result.std().item() == pytest.approx(std, abs=5 * std / (2 * VOXELS) ** 0.5)


def test_members_are_asked_in_turn(seed, rng):
    members = Members(rng, count=3)
    draw(Alternating(sample_ddim, 3), members, NoiseSchedule("cosine").steps(8), seed)
    assert members.asked == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("rule", [Alternating, AveragedStates])
def test_one_member_is_the_sampler_itself(rule, seed, rng):
    members, gammas = Members(rng, count=1), NoiseSchedule("cosine").steps(6)
    alone = draw(lambda denoise, *args, **options: sample_ancestral(partial(denoise, member=0), *args, **options),
                 members, gammas, seed)  # fmt: skip
    assert torch.equal(draw(rule(sample_ancestral, 1), members, gammas, seed), alone)


def test_without_added_noise_averaged_states_are_averaged_estimates(seed, rng):
    members, gammas = Members(rng, count=3), NoiseSchedule("cosine").steps(6)

    def average(x_t, gamma):
        return sum(members(x_t, gamma, member) for member in range(3)) / 3

    generator = torch.Generator().manual_seed(seed)
    expected = sample_ddim(average, torch.randn(1, 1, VOXELS, 1, 1, generator=generator).double(), gammas)
    result = draw(AveragedStates(sample_ddim, 3), members, gammas, seed)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
