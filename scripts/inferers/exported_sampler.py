# SPDX-License-Identifier: Apache-2.0
"""The whole sampler as one scriptable module, for processes that have torch and nothing of ours."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..errors import BadInput
from ..measurement.as_scanned import AsScanned
from ..measurement.channels import coordinates, inside, measured, normalized
from ..measurement.intensity import IntensityRange, background, bright_end
from ..networks.engine import release_unets
from .fused_score_inferer import FusedScoreInferer, projected
from .orientations import UNTURNED, WAYS, mirrored

PROBE = 64  # numbers in a probe: plenty to tell four coefficients from


class ExportedSampler(nn.Module):
    """Volume in, volume out, as `inferer` does it with `network` in float32: `ckpt_export --net_id sampler_def` scripts it.

    Little of it is written twice. What depends on no noise level is traced from the inferer's own functions, for any size of
    volume; process and sampler are asked for their coefficients (`step_table`), and the loop below only adds up.
    Buffers: `seed`, which may be changed after loading; `levels` (NFE,), `table` (NFE, 7) and `begin` (2,).
    Its state dict is the network's. Raises BadInput for a sampler that is not linear in what it sees or asks planes one by one,
    for several scans of one contrast and for orientations that exchange axes.
    """

    seed: Tensor
    levels: Tensor
    table: Tensor
    begin: Tensor
    mirrored: list[list[int]]

    def __init__(self, inferer: FusedScoreInferer, network: nn.Module) -> None:
        super().__init__()
        release_unets(network)
        self.network, self.samples, self.brightest = network.eval(), inferer.samples, inferer.brightest
        levels, table, begin = step_table(inferer)
        self.register_buffer("seed", torch.tensor(inferer.seed), persistent=False)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("begin", begin, persistent=False)
        self.background, self.bright_end = background, bright_end
        self._trace(inferer)

    def _trace(self, inferer: FusedScoreInferer) -> None:
        degradation, diffusion = inferer.degradation, inferer.diffusion
        if isinstance(degradation, AsScanned) or (degradation is not None and degradation.positions != "coordinates"):
            raise BadInput("what depends on the slices of each scan cannot be exported; run the bundle itself")
        if (ways := inferer.ways(inferer.samples)) > UNTURNED:
            raise BadInput(f"axes that change places cannot be exported; take orientations 1 to {UNTURNED}, or run the bundle")
        self.mirrored = [mirrored(way) for way in WAYS[1:ways]]
        if degradation is not None and len(degradation.scans) > 1:
            raise BadInput("several scans of one contrast cannot be exported; run the bundle itself")
        self.block = [1, 1, 1] if degradation is None else list(degradation.factors)
        image = torch.rand(1, 2, *(4 * factor for factor in self.block))
        one, bound = image[:, :1], torch.rand(1, 2, 1, 1, 1)

        def project(volume: Tensor, first: Tensor, mask: Tensor, within: Tensor) -> Tensor:
            return projected(volume, None if degradation is None else degradation(first), mask, within, degradation)

        def normalize(image: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
            return normalized(image, IntensityRange(low, high), degradation)

        def restore(volume: Tensor, low: Tensor, high: Tensor) -> Tensor:
            return IntensityRange(low, high).restore(volume)

        self.measured = traced(lambda image: measured(image, degradation), image)
        self.normalized = traced(normalize, image, bound, bound)
        self.restored = traced(restore, one, bound[:, :1], bound[:, :1])
        self.coordinates = traced(lambda image: coordinates(image.shape[2:]), image)
        self.inside = traced(inside, image, one)
        self.projected = traced(project, one, one, one, one > 0)
        self.encode, self.decode = traced(diffusion.encode, one, one), traced(diffusion.decode, one, one)

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Takes the network's weights, as in models/model.pt."""
        return self.network.load_state_dict(state_dict, *args, **kwargs)

    def forward(self, image: Tensor) -> Tensor:
        """Translate volumes.

        image: raw conditions (B, C, H, W, D) as `FusedScoreInferer` takes them, in RAS and any intensity scale. Returns
        (B, 1, H, W, D) in the first condition's scale; k samples give (B, 2 + k, H, W, D): mean, deviation, samples.
        """
        for axis in range(3):
            if image.shape[axis + 2] % self.block[axis] != 0:
                raise ValueError("every side of the volume must be a multiple of the block; pad it first")
        first = self.translated(image)
        if len(self.mirrored) == 0:
            return first
        total = first.double()
        for axes in self.mirrored:
            total += self.translated(image.flip(axes)).flip(axes)
        return (total / (1 + len(self.mirrored))).to(first.dtype)

    def translated(self, image: Tensor) -> Tensor:
        """As `forward`, in one orientation."""
        image = self.measured(image)
        low = self.background(image)
        high = self.bright_end(image, low)
        low, high = low[:, :, None, None, None], high[:, :, None, None, None]
        conditions, mask = self.normalized(image, low, high)
        place = self.coordinates(image).to(conditions).expand(image.shape[0], -1, -1, -1, -1)
        x = torch.cat([conditions, place, mask], dim=1)
        within = self.inside(conditions, mask)
        drawn: list[Tensor] = []
        for index in range(self.samples):
            x_0 = self.sample(x, conditions[:, :1], mask, within, int(self.seed) + index)
            result = self.restored(self.decode(x_0, conditions[:, :1]), low[:, :1], high[:, :1])
            drawn.append(result.where(mask > 0, image[:, :1]))
        if len(drawn) == 1:
            return drawn[0]
        stack = torch.stack(drawn)
        return torch.cat([stack.mean(dim=0), stack.std(dim=0)] + drawn, dim=1)  # noqa: RUF005 (TorchScript knows no stars)

    def sample(self, x: Tensor, base: Tensor, mask: Tensor, within: Tensor, seed: int) -> Tensor:
        """One x_0 (B, 1, H, W, D): x (B, C + 4, H, W, D) is the network's input, base the first condition."""
        generator = Generator().manual_seed(seed)
        noise = torch.randn(base.shape, generator=generator).to(base)
        x_t = float(self.begin[0]) * self.encode(base, base) + float(self.begin[1]) * noise
        previous = torch.zeros_like(x_t)
        for level, row in zip(self.levels, self.table):  # noqa: B905 (TorchScript)
            weights: list[float] = row.tolist()
            shown, of_output, of_state, a, b, c, d = weights
            output = self.network(x, x_t * shown, level.expand(x.shape[0]))
            image = self.decode(of_output * output + of_state * x_t, base).clamp(-1.0, self.brightest)
            x_0 = self.encode(self.projected(image, base, mask, within), base)
            x_t = a * x_t + b * x_0 + c * previous
            if d != 0.0:
                x_t = x_t + d * torch.randn(base.shape, generator=generator).to(base)
            previous = x_0
        return x_t


def traced(function: Callable[..., Any], *examples: Tensor) -> Any:
    """A function of tensors compiled for any size; what it does may depend on their shapes, but not on their values."""
    with warnings.catch_warnings():  # of the check for whole blocks, which `forward` makes for itself
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean")
        return torch.jit.trace(function, examples, check_trace=False)


def step_table(inferer: FusedScoreInferer) -> tuple[Tensor, Tensor, Tensor]:
    """Process and sampler of an inferer as coefficients.

    Returns noise levels (n,) float32; (n, 7) float64: what the network sees of x_t, the weights of its output and of x_t in
    the estimate of x_0, and the weights of x_t, x_0, the previous x_0 and new noise in the next x_t; and (2,): the
    weights of the encoded condition and of noise in the first x_t.
    The sampler runs once on random numbers, and the coefficients are those that explain each state by the one before.
    Raises BadInput when none do.
    """
    process, generator = inferer.diffusion, Generator().manual_seed(0)
    seen, levels, draws = [torch.zeros(PROBE).double()], [], []
    states: list[Tensor] = []

    def denoise(x_t: Tensor, gamma: float, member: int | None = None) -> Tensor:
        if member is not None:
            raise BadInput("a sampler that asks planes one by one cannot be exported; leave combine_*.yaml out")
        states.append(x_t)
        levels.append(gamma)
        draws.append(torch.randn(PROBE, generator=generator.clone_state()))
        seen.append(torch.randn(PROBE, generator=Generator().manual_seed(len(seen))).double())
        return seen[-1]

    states.append(inferer.sampler(denoise, torch.linspace(-1, 1, PROBE).double(), inferer.gammas, generator=generator))
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    rows = []
    for index, gamma in enumerate(torch.tensor(levels).double()[:, None]):
        known = torch.stack([states[index], seen[index + 1], seen[index], draws[index].double()], dim=1)
        weights = torch.linalg.lstsq(known, states[index + 1][:, None], driver="gelsd").solution[:, 0]
        if not torch.allclose(known @ weights, states[index + 1], atol=1.0e-5):
            raise BadInput("the sampler is no sum of state, estimates and noise, and cannot be exported; use sample_ddim")
        of_process = [process.shown(one, gamma), process.x_0(one, zero, gamma), process.x_0(zero, one, gamma)]
        rows.append(torch.cat([*of_process, weights.where(weights.abs() > 1.0e-9, 0.0)]))
    first = inferer.gammas[:1].double()
    begin = torch.cat([process.noised(one, zero, first), process.noised(zero, one, first)])
    return torch.tensor(levels), torch.stack(rows), begin
