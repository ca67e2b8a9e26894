# SPDX-License-Identifier: Apache-2.0
"""From clean samples to what a denoiser is trained on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..diffusion import Diffusion
from .plane_cache import PlaneCache

Batch = tuple[Tensor, Tensor, tuple[()], dict[str, Any]]


class NoisyBatch:
    """Adds noise: Algorithm 1 of Zhu et al. 2025 up to the network. The `prepare_batch` of a MONAI trainer.

    Noise and noise level of a sample depend on its index alone (noise on the kind of device, too), so that a resumed or
    distributed run sees the same.
    kept: what frozen planes say at gamma = 0, for a `RecallingFusion`.
    """

    def __init__(self, diffusion: Diffusion, seed: int = 0, kept: PlaneCache | None = None) -> None:
        self.diffusion, self.seed, self.kept = diffusion, seed, kept

    def __call__(self, batchdata: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Batch:
        """Batch of `image`, `label`, `base`, `index` -> network input, target, (), {x_t, timesteps = gamma}."""
        image, label, base = (batchdata[key].to(device, non_blocking=non_blocking) for key in ("image", "label", "base"))
        x_0 = self.diffusion.encode(label, base)
        draws = [self._draw(int(index), x_0[0]) for index in batchdata["index"]]
        epsilon = torch.stack([noise for noise, _ in draws])
        gamma = self.diffusion.draw_gamma(torch.tensor([uniform for _, uniform in draws])).to(device)
        x_t = self.diffusion.shown(self.diffusion.noised(x_0, epsilon, gamma), gamma)
        noisy: dict[str, Any] = {"x_t": x_t, "timesteps": gamma}
        if self.kept is not None and self.kept.ready:
            noisy["kept"] = self.kept.recall(batchdata, gamma)
        return image, self.diffusion.target(x_0, epsilon, gamma), (), noisy

    def _draw(self, index: int, sample: Tensor) -> tuple[Tensor, float]:
        seed = self.seed * 1_000_003 + index
        generator = torch.Generator().manual_seed(seed)
        uniform = float(torch.rand((), generator=generator))
        if sample.device.type != "cpu":  # drawn where it is used: millions of numbers a step would keep a GPU waiting
            generator = torch.Generator(sample.device).manual_seed(seed)
        return torch.randn(sample.shape, generator=generator, device=sample.device), uniform
