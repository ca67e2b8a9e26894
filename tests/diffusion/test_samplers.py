# SPDX-License-Identifier: Apache-2.0
"""Samplers on a Gaussian target, for which everything is known: x_0 ~ N(m, s^2), so E[x_0 | x_t] is linear in x_t."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from scripts.diffusion import SAMPLERS, NoiseSchedule, sample_ancestral, sample_ddim, sample_heun

VARIANTS = {**SAMPLERS, "ddim eta 1": partial(sample_ddim, eta=1.0)}
VOXELS = 40_000


class Gaussian:
    """The best denoiser of voxels that are N(m, s^2)."""

    def __init__(self, rng):
        self.m, self.s = rng.uniform(-1, 1), rng.uniform(0.3, 1.2)

    def line(self, gamma):
        """E[x_0 | x_t] = slope * x_t + offset."""
        slope = self.s**2 * np.sqrt(gamma) / (gamma * self.s**2 + 1 - gamma)
        return slope, self.m * (1 - slope * np.sqrt(gamma))

    def __call__(self, x_t, gamma):
        slope, offset = self.line(gamma)
        return slope * x_t + offset

    def flow(self, x, gamma, gamma_next):
        """Exact solution of the probability-flow ODE: a voxel keeps its distance from the mean in standard deviations."""
        deviation, wanted = (np.sqrt(g * self.s**2 + 1 - g) for g in (gamma, gamma_next))
        return np.sqrt(gamma_next) * self.m + wanted * (x - np.sqrt(gamma) * self.m) / deviation


def posterior(gamma, gamma_next):
    """q(x_next | x_t, x_0) by adding the precisions of what x_t and x_0 say: factors of x_t and x_0, variance."""
    if gamma_next == 1:
        return 0.0, 1.0, 0.0
    alpha = gamma / gamma_next
    variance = 1 / (alpha / (1 - alpha) + 1 / (1 - gamma_next))
    return variance * np.sqrt(alpha) / (1 - alpha), variance * np.sqrt(gamma_next) / (1 - gamma_next), variance


def implicit(gamma, gamma_next):
    """As `posterior`, for a step that keeps the noise x_t says to hold."""
    kept = np.sqrt((1 - gamma_next) / (1 - gamma))
    return kept, np.sqrt(gamma_next) - kept * np.sqrt(gamma), 0.0


def expected(gaussian, gammas, step):
    """Mean and standard deviation of the result, by recursion over the steps."""
    mean, variance = 0.0, 1.0
    for gamma, gamma_next in pairwise(gammas.double().tolist()):
        of_x_t, of_x_0, added = step(gamma, gamma_next)
        slope, offset = gaussian.line(gamma)
        factor = of_x_t + of_x_0 * slope
        mean, variance = factor * mean + of_x_0 * offset, factor**2 * variance + added
    return mean, np.sqrt(variance)


def draw(sampler, gaussian, gammas, seed):
    """Results of a sampler in float64, from noise of this seed."""
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randn(1, 1, VOXELS, 1, 1, generator=generator).double()
    return sampler(gaussian, x_t, gammas, generator=generator)


def assert_distributed(result, mean, std, bias=0.0):
    """Within five standard errors."""
    assert result.mean().item() == pytest.approx(mean, abs=5 * std / VOXELS**0.5 + bias)
    assert result.std().item() == pytest.approx(std, abs=5 * std / (2 * VOXELS) ** 0.5 + bias)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [4, 10, 20, 50])
@pytest.mark.parametrize(("name", "step"), [("ancestral", posterior), ("ddim", implicit), ("ddim eta 1", posterior)])
def test_a_gaussian_comes_out_as_the_recursion_says(kind, steps, name, step, seed, rng):
    gaussian, gammas = Gaussian(rng), NoiseSchedule(kind).steps(steps)
    assert_distributed(draw(VARIANTS[name], gaussian, gammas, seed), *expected(gaussian, gammas, step))


@pytest.mark.parametrize(
    ("name", "shortfall"), [("ancestral", 0.15), ("ddim", 0.08), ("dpm_solver_pp_2m", 0.01), ("heun", 0.01)]
)
def test_fifty_steps_recover_the_gaussian(name, shortfall, seed, rng):
    gaussian = Gaussian(rng)
    result = draw(VARIANTS[name], gaussian, NoiseSchedule("cosine").steps(50), seed)
    # the small variance of ancestral steps loses up to 15 % of the spread, the first-order DDIM half of that
    assert_distributed(result, gaussian.m, gaussian.s, bias=shortfall * gaussian.s)


@pytest.mark.parametrize(("name", "step"), [("ancestral", posterior), ("ddim", implicit)])
def test_skipping_pure_noise_changes_nothing(name, step, seed, rng):
    gaussian, schedule = Gaussian(rng), NoiseSchedule("linear")
    long, short = schedule.steps(50, skip_noise=False), schedule.steps(50)
    assert len(short) < 0.5 * len(long)
    result = draw(VARIANTS[name], gaussian, short, seed)
    # starting at gamma < 1e-4 instead of 0 forgets at most sqrt(1e-4) of the mean
    assert_distributed(result, *expected(gaussian, long, step), bias=0.01)


def test_ddim_with_eta_1_is_ancestral(seed, rng):
    gaussian, gammas = Gaussian(rng), NoiseSchedule("cosine").steps(10)
    ancestral = draw(sample_ancestral, gaussian, gammas, seed)
    torch.testing.assert_close(draw(VARIANTS["ddim eta 1"], gaussian, gammas, seed), ancestral, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver_pp_2m", 2), ("heun", 2)])
def test_error_falls_with_the_order_of_the_solver(name, order, rng):
    gaussian, x = Gaussian(rng), torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(steps):
        gammas = torch.linspace(-9, 9, steps + 1, dtype=torch.float64).sigmoid()  # even in log-SNR
        exact = gaussian.flow(x, gammas[0].item(), gammas[-1].item())
        return (VARIANTS[name](gaussian, x, gammas) - exact).abs().max().item()

    assert error(80) / error(160) == pytest.approx(2**order, rel=0.1)  # terms of next order: 1/80 of the first


@pytest.mark.parametrize("first", [0.0, 0.02])
def test_heun_is_the_trapezoid_rule_in_sigma(first, rng):
    """Written as Karras et al. 2022 do, in x / sqrt(gamma); from gamma 0 the first step is an exact one of DDIM."""
    gaussian, x_t = Gaussian(rng), torch.linspace(-2, 2, 9, dtype=torch.float64)
    gammas = torch.tensor([first, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    result = sample_heun(gaussian, x_t, gammas)
    begin = 1 if first == 0 else 0
    x_t = sample_ddim(gaussian, x_t, gammas[: begin + 1])
    x, sigmas = x_t / gammas[begin].sqrt(), ((1 - gammas[begin:]) / gammas[begin:]).sqrt()

    def slope(x, sigma):
        gamma = 1 / (1 + sigma.item() ** 2)
        return (x - gaussian(np.sqrt(gamma) * x, gamma)) / sigma

    for sigma, sigma_next in pairwise(sigmas):
        euler = x + (sigma_next - sigma) * slope(x, sigma)
        mean = slope(x, sigma) if sigma_next == 0 else (slope(x, sigma) + slope(euler, sigma_next)) / 2
        x = x + (sigma_next - sigma) * mean
    torch.testing.assert_close(result, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_step_is_the_expected_value(name, seed, rng):
    gaussian = Gaussian(rng)
    result = draw(VARIANTS[name], gaussian, NoiseSchedule("cosine").steps(1), seed)
    torch.testing.assert_close(result, torch.full_like(result, gaussian.m), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("spacing", ["time", "log_snr"])
def test_result_is_the_last_estimate_to_the_bit(name, spacing, seed):
    said = []

    def denoise(x_t, gamma):
        said.append(torch.randn(x_t.shape))
        return said[-1]

    gammas = NoiseSchedule("linear", spacing=spacing).steps(6)
    result = VARIANTS[name](denoise, torch.randn(1, 1, 5, 5, 5), gammas)
    assert torch.equal(result, said[-1])


def test_ddim_adds_the_noise_of_its_eta(rng):
    """Eq. 16 of Song et al. 2021, measured over many voxels."""
    eta, gamma, gamma_next = 0.5, 0.2, 0.7
    x_t = torch.from_numpy(rng.standard_normal((1, 1, 40, 40, 40)))
    seen = []

    def denoise(x, level):
        seen.append(x)
        return torch.zeros_like(x)

    levels, seed = torch.tensor([gamma, gamma_next, 1.0], dtype=torch.float64), int(rng.integers(1 << 30))
    sample_ddim(denoise, x_t, levels, eta=eta, generator=torch.Generator().manual_seed(seed))
    sigma = eta * math.sqrt((1 - gamma_next) / (1 - gamma) * (1 - gamma / gamma_next))
    epsilon = x_t / math.sqrt(1 - gamma)  # x_0 is 0
    noise = seen[1] - math.sqrt(1 - gamma_next - sigma**2) * epsilon
    assert float(noise.std()) == pytest.approx(sigma, rel=0.02)
    assert abs(float((noise * epsilon).mean())) < 0.02
