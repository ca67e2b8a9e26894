# SPDX-License-Identifier: Apache-2.0
"""The bridge against the closed forms of Liu et al. 2023, written down as they are: between x_1 (the base) and x_0."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from scripts.diffusion import Bridge, NoiseSchedule, sample_bridge
from scripts.errors import BadInput

VOXELS = 40_000


def draw_bridge(rng):
    """A bridge, image and base in float64, noise, and gammas away from the ends."""
    bridge = Bridge(NoiseSchedule("cosine"), sigma_data=float(rng.uniform(0.03, 0.3)))
    image, base, epsilon = torch.randn(3, 4, 1, 5, 6, 7, dtype=torch.float64)
    return bridge, image, base, epsilon, torch.as_tensor(rng.uniform(0.05, 0.95, 4))


def test_the_default_noise_is_that_of_the_published_betas():
    betas = np.linspace(1e-4**0.5, (0.3 / 1000) ** 0.5, 1000) ** 2  # "beta_max 0.3", up to the middle and down again
    assert Bridge().spread == pytest.approx(np.sqrt(2 * betas[:500].sum()), rel=2e-3)


def test_states_have_the_marginals_of_equation_11(rng):
    bridge, image, base, epsilon, gamma = draw_bridge(rng)
    states = bridge.decode(bridge.noised(bridge.encode(image, base), epsilon, gamma), base)
    g = gamma.numpy().reshape(4, 1, 1, 1, 1)
    gathered, left = bridge.spread**2 * (1 - g), bridge.spread**2 * g  # sigma_t^2 and its complement
    mean = left / (left + gathered) * image.numpy() + gathered / (left + gathered) * base.numpy()
    std = np.sqrt(gathered * left / (left + gathered))
    np.testing.assert_allclose(states, mean + std * epsilon.numpy(), atol=1e-12)


def test_the_target_is_that_of_equation_12_and_leads_back(rng):
    bridge, image, base, epsilon, gamma = draw_bridge(rng)
    x_0 = bridge.encode(image, base)
    x_t, target = bridge.noised(x_0, epsilon, gamma), bridge.target(x_0, epsilon, gamma)
    sigma = bridge.spread * np.sqrt(1 - gamma.numpy()).reshape(4, 1, 1, 1, 1)
    said = (bridge.decode(x_t, base) - image).numpy() / sigma
    np.testing.assert_allclose(target, said, atol=1e-10)
    torch.testing.assert_close(bridge.x_0(target, x_t, gamma), x_0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 4, 300])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_gaussian_comes_out_as_the_recursion_says(steps, noise, seed, rng):
    """x_0 ~ N(m, s^2), x_1 = 0: E[x_0 | x_t] is linear, so mean and variance of every state are known."""
    m, s, bridge = rng.uniform(-1, 1), rng.uniform(0.3, 1.2), Bridge(sigma_data=0.1)
    total, gammas = bridge.noise**2, NoiseSchedule("cosine").steps(steps)

    def line(gamma):
        slope = gamma * s**2 / max(gamma**2 * s**2 + total * gamma * (1 - gamma), 1e-30)
        return slope, m * (1 - slope * gamma)

    mean, variance = 0.0, 0.0
    for gamma, after in pairwise(gammas.double().tolist()):
        slope, offset = line(gamma)
        step, left = total * (after - gamma), total * (1 - after)  # their alpha_n^2 and sigma_(n-1)^2
        of_x_0, of_x_t = step / (step + left), left / (step + left)
        mean = (of_x_t + of_x_0 * slope) * mean + of_x_0 * offset
        variance = (of_x_t + of_x_0 * slope) ** 2 * variance + noise * step * left / (step + left)

    def denoise(x_t, gamma):
        slope, offset = line(gamma)
        return slope * x_t + offset

    start = torch.zeros(1, 1, VOXELS, 1, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    result = sample_bridge(denoise, start, gammas, noise=noise * bridge.noise, generator=generator)
    std = np.sqrt(variance)
    assert result.mean().item() == pytest.approx(mean, abs=5 * std / VOXELS**0.5 + 1e-9)  # five standard errors
    assert result.std().item() == pytest.approx(std, abs=5 * std / (2 * VOXELS) ** 0.5 + 1e-9)
    if noise and steps == 300:  # many steps recover the target; each loses what the estimate leaves open, O(1 / steps)
        assert (mean, std) == (pytest.approx(m, abs=0.01), pytest.approx(s, rel=0.05))


def test_the_last_step_gives_the_estimate_to_the_bit(seed):
    said = []

    def denoise(x_t, gamma):
        said.append(torch.randn(x_t.shape))
        return said[-1]

    result = partial(sample_bridge, noise=0.7)(denoise, torch.zeros(1, 1, 5, 5, 5), NoiseSchedule("cosine").steps(6))
    assert torch.equal(result, said[-1])
    assert len(said) == 6


@pytest.mark.parametrize("options", [{"prediction": "x_0"}, {"residual": False}])
def test_a_bridge_without_its_target_is_refused(options):
    with pytest.raises(BadInput, match="prediction v and residual true"):
        Bridge(**options)
