# SPDX-License-Identifier: Apache-2.0
"""Noise schedules: how gamma = prod(1 - beta), the share of signal variance, falls with time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import BadInput

START = 1.0e-4  # below this share of signal a state cannot be told from pure noise


class NoiseSchedule(nn.Module):
    """A table of gamma over discrete times, and the noise levels that training draws and sampling visits.

    kind: "linear" (beta from `beta_start` to `beta_end`), "scaled_linear" (its square root is linear) or "cosine"
    (gamma = cos^2(pi t / 2T), ends at exactly zero; only for prediction of x_0 or v). The table `gammas` (T,) is float32
    and never follows the network to half precision: on 1e-4 -> 0.09 gamma ends at 6.6e-21.
    spacing: where a sampler's steps lie: "time", even in time as in the paper, or "log_snr", even in
    log(gamma / (1 - gamma)). start: the noise level at which sampling begins, above 0 from the noised condition instead of pure
    noise (Chung et al. 2022, "Come-Closer-Diffuse-Faster"). Raises BadInput for an unknown kind or spacing, and for a start
    outside [0, 1).
    """

    gammas: Tensor

    def __init__(
        self, kind: str = "cosine", *, beta_start: float = 1.0e-4, beta_end: float = 0.09, times: int = 1000,
        spacing: str = "time", start: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if spacing not in ("time", "log_snr"):
            raise BadInput(f"no spacing '{spacing}'; choose time or log_snr")
        if not 0 <= start < 1:
            raise BadInput(f"sampling starts at a noise level gamma from 0 to below 1, not {start}")
        self.kind, self.spacing, self.start = kind, spacing, start
        time = torch.arange(1, times + 1, dtype=torch.float64) / times
        if kind == "linear":
            gammas = (1 - torch.linspace(beta_start, beta_end, times, dtype=torch.float64)).cumprod(0)
        elif kind == "scaled_linear":
            roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), times, dtype=torch.float64)
            gammas = (1 - roots**2).cumprod(0)
        elif kind == "cosine":
            gammas = (0.5 * math.pi * time).cos() ** 2
            gammas[-1] = 0.0
        else:
            raise BadInput(f"no noise schedule '{kind}'; choose linear, scaled_linear or cosine")
        self.register_buffer("gammas", gammas.float(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NoiseSchedule:
        """Moves between devices keep the table as it is; half precision would round its end to zero."""
        table = self.gammas
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.gammas = table.to(self.gammas.device)
        return self

    def at(self, time: Tensor) -> Tensor:
        """Gamma at continuous times in [0, 1], linear between table entries; gamma(0) = 1. Any shape."""
        table = torch.cat([torch.ones(1, device=self.gammas.device), self.gammas])
        place = time.to(table).clamp(0, 1) * (len(table) - 1)
        below = place.floor().clamp(max=len(table) - 2)
        return torch.lerp(table[below.long()], table[below.long() + 1], place - below)

    def steps(self, count: int, *, skip_noise: bool = True) -> Tensor:
        """Noise levels of a sampler with `count` steps: (count + 1,) from pure noise to gamma = 1, float32.

        skip_noise: leave out leading steps that start and end below gamma = 1e-4, where nothing but noise is seen; fewer
        than `count` steps remain then. Raises BadInput when there is no step.
        """
        if count < 1:
            raise BadInput(f"a sampler needs at least 1 step, not {count}")
        begin = self.gammas[-1].clamp(min=self.start).cpu()
        if self.spacing == "time":
            noisier = int((self.gammas <= begin).sum()) - 1  # table entries that are left out
            gammas = self.at(torch.linspace(1 - noisier / len(self.gammas), 0, count + 1)).cpu()
        else:
            first, last = torch.stack([begin.clamp(min=START), self.gammas[0].cpu()]).double().logit().tolist()
            inner = torch.linspace(first, last, count, dtype=torch.float64).sigmoid()
            gammas = torch.cat([begin[None], inner[1:].float(), torch.ones(1)])
        gammas[0] = begin
        noise_only = int((gammas < START).sum()) - 1
        return gammas[max(noise_only, 0) :] if skip_noise else gammas
