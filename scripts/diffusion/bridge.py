# SPDX-License-Identifier: Apache-2.0
"""The bridge from the condition to the target (I2SB), in place of a diffusion from noise."""

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Generator, Tensor

from ..errors import BadInput
from .process import Diffusion, over
from .samplers import Denoise, noise_like


@dataclass
class Bridge(Diffusion):
    """Image-to-image Schroedinger bridge, Liu et al. 2023: the state starts as the base and ends as the image.

    Diffused is the residual to the base, so that the far end of the bridge is zero. The noise that has gathered at time t,
    `sigma_t^2` of their Eq. 11, is here `noise^2 (1 - gamma)`, with gamma from the schedule: 1 at the image, 0 at the base.
    The posterior between both ends is then `N(gamma x_0, noise^2 gamma (1 - gamma))`. A symmetrical schedule is theirs in
    shape: cosine. spread: standard deviation of all noise in intensities of an image in [-1, 1]; 0.375 is their beta_max 0.3.
    Their target `(x_t - x_0) / sigma_t` (Eq. 12) is v prediction of `x_0 / noise`, hence `prediction` must be "v".
    Raises BadInput for another prediction and without `residual`.
    """

    spread: float = 0.375

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction != "v" or not self.residual:
            raise BadInput("a bridge needs prediction v and residual true; leave out the overlay that changes them")

    @property
    def noise(self) -> float:
        """The spread in units of the encoded x_0."""
        return self.spread / (2 * self.sigma_data)

    def noised(self, x_0: Tensor, epsilon: Tensor, gamma: Tensor) -> Tensor:
        """`gamma x_0 + noise sqrt(gamma (1 - gamma)) epsilon`, their Eq. 11 where the far end is zero. gamma: (B,)."""
        level = over(gamma, x_0)
        return level * x_0 + self.noise * (level * (1 - level)).sqrt() * epsilon

    def target(self, x_0: Tensor, epsilon: Tensor, gamma: Tensor) -> Tensor:
        """`(x_t - x_0) / sigma_t`, their Eq. 12, written so that it has a value at sigma_t = 0. gamma: (B,)."""
        return super().target(x_0 / self.noise, epsilon, gamma)

    def x_0(self, output: Tensor, x_t: Tensor, gamma: Tensor) -> Tensor:
        """`x_t - sigma_t output`. gamma: (B,)."""
        return x_t - self.noise * (1 - over(gamma, x_t)).sqrt() * output


def sample_bridge(denoise: Denoise, x_t: Tensor, gammas: Tensor, *, noise: float, generator: Generator | None = None) -> Tensor:
    """Posterior sampling along a bridge, Algorithm 2 of Liu et al. 2023; noise: of the `Bridge`, 0 for their OT-ODE."""
    for gamma, gamma_next in pairwise(gammas.double().tolist()):
        x_0 = denoise(x_t, gamma)
        step = (gamma_next - gamma) / (1 - gamma)
        x_t = step * x_0 + (1 - step) * x_t if gamma_next < 1 else x_0
        if noise > 0 and gamma_next < 1:
            x_t = x_t + noise * math.sqrt((1 - gamma_next) * step) * noise_like(x_t, generator)
    return x_t
