# SPDX-License-Identifier: Apache-2.0
"""What is diffused, what is predicted, and how one is had from the other."""

from dataclasses import dataclass, field

from torch import Tensor

from ..errors import BadInput
from .schedules import NoiseSchedule


def over(gamma: Tensor, like: Tensor) -> Tensor:
    """Noise levels (B,) shaped to multiply (B, 1, ...)."""
    return gamma.to(like.device, like.dtype).view(-1, *([1] * (like.dim() - 1)))


@dataclass
class Diffusion:
    """A forward process and its prediction target; the one description that training and sampling share.

    schedule: noise levels; prediction: "epsilon", "x_0" or "v" = sqrt(gamma) epsilon - sqrt(1 - gamma) x_0 (Salimans and
    Ho 2022); residual: diffuse `(image - base) / 2` (what the authors' code does) instead of the image; sigma_data: its
    standard deviation, divided out so that the schedule meets unit data (1 for images);
    regression_share: the share of training draws at gamma = 0, where x_0 and v prediction learn the answer in one step.
    Raises BadInput for an unknown prediction.
    """

    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    prediction: str = "v"
    residual: bool = True
    sigma_data: float = 1.0
    regression_share: float = 0.0

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "x_0", "v"):
            raise BadInput(f"no prediction '{self.prediction}'; choose epsilon, x_0 or v")
        if self.prediction == "epsilon" and (self.regression_share > 0 or self.schedule.gammas[-1] == 0):
            raise BadInput("epsilon prediction says nothing at gamma = 0; use x_0 or v, or a linear schedule")

    def encode(self, image: Tensor, base: Tensor) -> Tensor:
        """The diffused x_0 of an image, same shape."""
        return ((image - base) / 2 if self.residual else image) / self.sigma_data

    def decode(self, x_0: Tensor, base: Tensor) -> Tensor:
        """Inverse of `encode`."""
        return 2 * self.sigma_data * x_0 + base if self.residual else self.sigma_data * x_0

    def draw_gamma(self, uniform: Tensor) -> Tensor:
        """Training noise levels from uniform numbers in [0, 1): continuous in time. (B,) -> (B,)."""
        time = (uniform - self.regression_share) / (1 - self.regression_share)
        gamma = self.schedule.at(time.clamp(min=0))
        return gamma.where(uniform >= self.regression_share, 0.0)

    def noised(self, x_0: Tensor, epsilon: Tensor, gamma: Tensor) -> Tensor:
        """`x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) epsilon`, Eq. 1. gamma: (B,)."""
        level = over(gamma, x_0)
        return level.sqrt() * x_0 + (1 - level).sqrt() * epsilon

    def shown(self, x_t: Tensor, gamma: Tensor) -> Tensor:
        """`x_t` as networks see it: at gamma = 0 it holds nothing of x_0, and zeros instead of noise make the answer sure.

        gamma: (B,). Without this, networks spend capacity on ignoring the noise.
        """
        return x_t * (over(gamma, x_t) > 0)

    def target(self, x_0: Tensor, epsilon: Tensor, gamma: Tensor) -> Tensor:
        """What the network is to say, Eq. 2 (for epsilon). gamma: (B,)."""
        if self.prediction == "epsilon":
            return epsilon
        if self.prediction == "x_0":
            return x_0
        level = over(gamma, x_0)
        return level.sqrt() * epsilon - (1 - level).sqrt() * x_0

    def x_0(self, output: Tensor, x_t: Tensor, gamma: Tensor) -> Tensor:
        """The estimate of x_0 behind the network's output. gamma: (B,)."""
        level = over(gamma, x_t)
        if self.prediction == "epsilon":
            return (x_t - (1 - level).sqrt() * output) / level.sqrt()
        if self.prediction == "x_0":
            return output
        return level.sqrt() * x_t - (1 - level).sqrt() * output
