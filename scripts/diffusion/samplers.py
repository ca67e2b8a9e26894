# SPDX-License-Identifier: Apache-2.0
"""Samplers: one short function each, of one signature.

`sample_x(denoise, x_t, gammas, *, generator)`: `denoise(x_t, gamma)` gives the estimate of x_0 (projected already where
something was measured) for a state and its noise level, both (B, 1, H, W, D) and a float; `gammas` (steps + 1,) runs from
noise (near 0) to 1; `generator` draws on the CPU, so that a seed means the same on every device.
Every sampler ends on an estimate of x_0 as `denoise` gave it: what the projection ensured holds for the result.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

Denoise = Callable[[Tensor, float], Tensor]
Sampler = Callable[..., Tensor]


def noise_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of x's shape, drawn on the CPU in float32 whatever x's device."""
    return torch.randn(x.shape, generator=generator).to(x.device)


def sample_ancestral(denoise: Denoise, x_t: Tensor, gammas: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Respaced ancestral sampling with the small (posterior) variance, Eq. 6 and 7 of Ho et al. 2020.

    What the paper calls DDIM with 50 steps is this in the authors' code.
    """
    for gamma, gamma_next in pairwise(gammas.double().tolist()):
        x_0 = denoise(x_t, gamma)
        alpha, left, left_next = gamma / gamma_next, 1 - gamma, 1 - gamma_next
        mean = math.sqrt(gamma_next) * (1 - alpha) / left * x_0 + math.sqrt(alpha) * left_next / left * x_t
        x_t = mean + math.sqrt(left_next / left * (1 - alpha)) * noise_like(x_t, generator) if left_next > 0 else mean
    return x_t


def sample_ddim(
    denoise: Denoise, x_t: Tensor, gammas: Tensor, *, eta: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """Denoising diffusion implicit steps, Eq. 12 and 16 of Song et al. 2021; eta 1 is ancestral sampling."""
    for gamma, gamma_next in pairwise(gammas.double().tolist()):
        x_0 = denoise(x_t, gamma)
        epsilon = _epsilon(x_t, x_0, gamma)
        variance = eta**2 * (1 - gamma_next) / (1 - gamma) * (1 - gamma / gamma_next)
        x_t = math.sqrt(gamma_next) * x_0 + math.sqrt(max(1 - gamma_next - variance, 0.0)) * epsilon
        if variance > 0:
            x_t = x_t + math.sqrt(variance) * noise_like(x_t, generator)
    return x_t


def sample_dpm_solver_pp_2m(denoise: Denoise, x_t: Tensor, gammas: Tensor, *, generator: Generator | None = None) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2 of Lu et al. 2022; the first and the last step are of first order."""
    previous, h_previous = x_t, math.inf  # an infinite step before the first: no correction
    for gamma, gamma_next in pairwise(gammas.double().tolist()):
        x_0 = denoise(x_t, gamma)
        h = _half_log_snr(gamma_next) - _half_log_snr(gamma)
        correction = h / (2 * h_previous) if math.isfinite(h) else 0.0
        data = x_0 if correction == 0 else (1 + correction) * x_0 - correction * previous
        x_t = math.sqrt((1 - gamma_next) / (1 - gamma)) * x_t - math.sqrt(gamma_next) * math.expm1(-h) * data
        previous, h_previous = x_0, h
    return x_t


def sample_heun(denoise: Denoise, x_t: Tensor, gammas: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Heun's method, Algorithm 1 of Karras et al. 2022 without churn: of second order, by two calls a step.

    Their x is `x_t / sqrt(gamma)`, their sigma `sqrt((1 - gamma) / gamma)` and their slope epsilon. A step from gamma 0, where
    sigma is infinite, and the last one are Euler's, which is that of DDIM.
    """
    for gamma, gamma_next in pairwise(gammas.double().tolist()):
        x_0 = denoise(x_t, gamma)
        slope = _epsilon(x_t, x_0, gamma)
        euler = math.sqrt(gamma_next) * x_0 + math.sqrt(1 - gamma_next) * slope
        if gamma == 0 or gamma_next == 1:
            x_t = euler
            continue
        slope = (slope + _epsilon(euler, denoise(euler, gamma_next), gamma_next)) / 2
        scale = math.sqrt(gamma_next / gamma)
        x_t = scale * x_t + (math.sqrt(1 - gamma_next) - scale * math.sqrt(1 - gamma)) * slope
    return x_t


def _epsilon(x_t: Tensor, x_0: Tensor, gamma: float) -> Tensor:
    """The noise that makes x_t of x_0, Eq. 1."""
    return (x_t - math.sqrt(gamma) * x_0) / math.sqrt(1 - gamma)


def _half_log_snr(gamma: float) -> float:
    if gamma <= 0 or gamma >= 1:
        return -math.inf if gamma <= 0 else math.inf
    return 0.5 * math.log(gamma / (1 - gamma))


def sample_one_step(denoise: Denoise, x_t: Tensor, gammas: Tensor, *, generator: Generator | None = None) -> Tensor:
    """The estimate of x_0 from noise alone: with x_0 or v prediction the regression answer."""
    return denoise(x_t, float(gammas[0]))


# By name: what the NFE curve compares and the tests ask everything of. A new sampler is a line here.
SAMPLERS: dict[str, Sampler] = {
    sampler.__name__.removeprefix("sample_"): sampler
    for sampler in (sample_ancestral, sample_ddim, sample_dpm_solver_pp_2m, sample_heun, sample_one_step)
}
__all__ = ["SAMPLERS", *(f"sample_{name}" for name in SAMPLERS)]
