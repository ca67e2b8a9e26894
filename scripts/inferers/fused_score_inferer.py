# SPDX-License-Identifier: Apache-2.0
"""Volume in, volume out."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from zlib import crc32

import torch
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Generator, Tensor, nn

from ..diffusion import Diffusion
from ..diffusion.samplers import noise_like, sample_ancestral
from ..errors import BadInput
from ..measurement import AsScanned, Degradation
from ..measurement.channels import inside, normalized_input
from .backend import Ask, Backend
from .circle import Circle, beyond
from .ladder import climb_down
from .memory import keep_freed_memory
from .orientations import WAYS, mean_of
from .precision import autocast

ROUNDING = 1e-5  # of the range of intensities
CROP = 20  # voxels a side of the part of a volume on which numbers are compared: 1 to 2 % of the time of a head
SMALLEST = 17  # voxels a side that the networks can halve three times


class FusedScoreInferer(Inferer):
    """Samples a volume with fused plane denoisers: Algorithm 2 of Zhu et al. 2025.

    diffusion: the process the network was trained on; sampler: a function of `scripts.diffusion.samplers`; steps: how
    many; degradation: how the first condition was measured, and whether every step keeps it, None when nothing of the target
    was; samples: runs with different noise; seed: of the first; precision: "auto", "float32" or "bfloat16"; backend: "auto",
    "torch" or "openvino" (`Backend`); memory_gb: use no more than this, where less memory is wanted than is free (`ladder`).
    brightest: where estimates are cut, normalised: 0.5 is the 99.9th percentile of what was measured. orientations: ways in
    which a volume is laid, of 8, for an answer of one evaluation, their mean (`orientations`).
    """

    def __init__(  # noqa: PLR0913  as of `find_cases`
        self, diffusion: Diffusion, sampler: Callable[..., Tensor] = sample_ancestral, *, steps: int = 50,
        degradation: Degradation | AsScanned | None = None, samples: int = 1, seed: int = 0,
        precision: str = "auto", backend: str = "auto", memory_gb: float | None = None, brightest: float = 1.0,
        orientations: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        keep_freed_memory()
        self.diffusion, self.sampler = diffusion, sampler
        self.gammas = diffusion.schedule.steps(steps)
        self.degradation = degradation
        if samples < 1:
            raise BadInput(f"samples {samples}: at least 1 is needed")
        self.samples, self.seed, self.brightest = samples, seed, brightest
        if not 1 <= orientations <= len(WAYS):
            raise BadInput(f"orientations {orientations}: a volume can be laid in 1 to {len(WAYS)} ways")
        self.orientations = orientations
        self.backend, self.memory_gb = Backend(backend, precision), memory_gb
        self.numbers = ""  # that convolutions of the latest volume were computed in
        self.doubts: list[str] = []  # of them

    @property
    def nfe(self) -> int:
        """Network evaluations per plane and sample: of the plane that is asked most often."""
        calls = self._asked()
        together = calls.pop(None, 0)
        return self.ways(self.samples) * (together + max(calls.values(), default=0))

    def calls(self) -> Counter[int | None]:
        """Network evaluations of all samples of a volume: of each member alone, and under None of all of them together."""
        times = self.samples * self.ways(self.samples)
        return Counter({member: times * count for member, count in self._asked().items()})

    def ways(self, samples: int) -> int:
        """In how many a volume is laid: what several steps or samples give is drawn, and a mean of such draws would be none."""
        return self.orientations if samples * self._asked().total() == 1 else 1

    def _asked(self) -> Counter[int | None]:
        """How often the sampler asks each member alone, and under None all of them: counted by running it on one voxel."""
        calls: Counter[int | None] = Counter()

        def denoise(x_t: Tensor, gamma: float, member: int | None = None) -> Tensor:
            calls[member] += 1
            return x_t

        self.sampler(denoise, torch.zeros(1, 1, 1, 1, 1), self.gammas, generator=Generator())
        return calls

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, seed: int | None = None, samples: int | None = None,
        case: str = "", **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        """Translate volumes.

        inputs: raw conditions (B, C, H, W, D) in any intensity scale; where there is a degradation, channel 0 holds the
        measurement laid out on the fine grid. network: (x, x_t, gamma) -> estimate, as `ScoreFusion`. case: a name; cases of
        other names get other noise from one seed, so that their errors are independent.
        Returns (B, 1, H, W, D) in the first condition's intensity scale, background kept as it was; with k samples
        (B, 2 + k, H, W, D): their mean, their standard deviation (ddof 1) as uncertainty, and the samples themselves.
        Raises BadInput when a side is shorter than 17 voxels or not a multiple of the degradation's block, and when several
        samples are asked of one evaluation of pure noise, which is the same for every seed.
        """
        samples = self.samples if samples is None else samples
        first = (self.seed if seed is None else seed) + crc32(os.fsencode(case))
        measurement = self.measured_by(inputs)
        answer = partial(self._opened, network=network, measurement=measurement, first=first, samples=samples)
        return mean_of(answer, inputs.as_subclass(Tensor), self.ways(samples), measurement)

    def _opened(self, inputs: Tensor, *, network: nn.Module, measurement: Degradation | None, **options: Any) -> Tensor:
        """As `_translated`, where the last axis closes in a circle as well."""
        if measurement is None or not measurement.periodic:
            return self._translated(inputs, network, measurement, **options)
        circle = Circle(inputs, measurement, SMALLEST)
        return circle.closed(self._translated(circle.opened(inputs), network, measurement, **options))

    def _translated(
        self, inputs: Tensor, network: nn.Module, measurement: Degradation | None, *, first: int, samples: int
    ) -> Tensor:  # fmt: skip
        """As the call; first: seed of the first sample."""
        self._check(inputs, measurement)
        evaluations = samples * self._asked().total()
        if samples > 1 and self.gammas[0] == 0 and evaluations == samples:
            remedy = "take 2 or more steps for an uncertainty (sampler_fast)"
            raise BadInput(f"{samples} samples of one step are all the same; {remedy}")
        computation = self.backend.prepare(network, inputs.device, self._ask(network, inputs, measurement), evaluations)
        self.numbers, half = computation.numbers, computation.half
        self.doubts = [computation.doubt] if computation.doubt else []

        def draw(device: torch.device) -> Tensor:
            if device != inputs.device:
                network.to(device)
            moved = inputs.to(device)
            return self._combined([self._sample(moved, network, measurement, first + index, half) for index in range(samples)])

        try:
            return climb_down(draw, network, inputs, half=half, limit_gb=self.memory_gb).to(inputs.device)
        finally:
            if inputs.device.type != "cpu":
                network.to(inputs.device)

    def seen(self, sides: Sequence[int]) -> list[int]:
        """Sides of what networks see of volumes (H, W, D)."""
        height, width, depth = sides
        if not getattr(self.degradation, "periodic", False):
            return [height, width, depth]
        return [height, width, depth + 2 * beyond(depth, self.degradation.factors[-1], SMALLEST)]  # type: ignore[union-attr]

    @staticmethod
    def _combined(drawn: list[Tensor]) -> Tensor:
        if len(drawn) == 1:
            return drawn[0]
        stack = torch.stack(drawn)
        return torch.cat([stack.mean(dim=0), stack.std(dim=0), *drawn], dim=1)

    def measured_by(self, inputs: Tensor) -> Degradation | None:
        """The operator of a volume, by its meta where each scan has its own."""
        return None if self.degradation is None else self.degradation.of(inputs)

    @staticmethod
    def _check(inputs: Tensor, measurement: Degradation | None) -> None:
        if inputs.dim() != 5:
            raise BadInput(f"input of shape {list(inputs.shape)}; give a batch of volumes (B, C, H, W, D)")
        shape = "x".join(str(side) for side in inputs.shape[2:])
        if min(inputs.shape[2:]) < SMALLEST:
            raise BadInput(f"volume of {shape}: every side needs at least {SMALLEST} voxels; pad it first")
        if measurement is None:
            return
        if any(side % factor for side, factor in zip(inputs.shape[2:], measurement.factors, strict=True)):
            raise BadInput(f"volume of {shape} is not a multiple of the block {measurement.factors}; pad it first")

    @staticmethod
    def middle(inputs: Tensor, measurement: Degradation | None, side: int = CROP) -> Tensor:
        """What the network sees (B, C + 4, h, w, d) in the middle of volumes, at most so many voxels a side."""
        factors = (1, 1, 1) if measurement is None else measurement.factors
        for axis, factor in enumerate(factors, start=2):
            length = min(-(-side // factor) * factor, inputs.shape[axis])
            inputs = inputs.narrow(axis, (inputs.shape[axis] - length) // 2 // factor * factor, length)
        x = normalized_input(inputs, None if measurement is None else measurement.on(inputs.shape[2:]))[0]
        for axis in (2, 3, 4):
            length = min(side, x.shape[axis])
            x = x.narrow(axis, (x.shape[axis] - length) // 2, length)
        return x

    def _ask(self, network: nn.Module, inputs: Tensor, measurement: Degradation | None) -> Ask:
        """The first evaluation of the sampler, of the middle of volumes, as `Backend` wants it."""

        def ask(half: bool) -> tuple[Tensor, Tensor]:
            x = self.middle(inputs, measurement)
            x_t = self._start(x[:, :1], Generator().manual_seed(0))
            output, image = self._evaluated(network, x, x_t, float(self.gammas[0]), half)
            return output, image + 1.0

        return ask

    def _start(self, base: Tensor, generator: Generator) -> Tensor:
        """Pure noise, unless sampling starts later, from the noised condition."""
        return self.diffusion.noised(self.diffusion.encode(base, base), noise_like(base, generator), self.gammas[:1])

    def _evaluated(
        self, asked: Callable[..., Tensor], x: Tensor, x_t: Tensor, gamma: float, half: bool
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What a network answers, in float32, and the image that it stands for, in [-1, 1]."""
        level = torch.full((len(x),), gamma, device=x.device)
        with autocast(x.device, half):
            output = asked(x, x_t=self.diffusion.shown(x_t, level), timesteps=level).float()
        return output, self.diffusion.decode(self.diffusion.x_0(output, x_t, level), x[:, :1]).clamp(-1.0, self.brightest)

    def _sample(self, inputs: Tensor, network: nn.Module, measurement: Degradation | None, seed: int, half: bool) -> Tensor:
        x, mask, scale = normalized_input(inputs, measurement)
        base, within = x[:, :1], inside(x[:, : inputs.shape[1]], mask)
        measured = None if measurement is None else measurement(base)

        def denoise(x_t: Tensor, gamma: float, member: int | None = None) -> Tensor:
            asked = network if member is None else network.alone(member)  # type: ignore[operator]
            image = self._evaluated(asked, x, x_t, gamma, half)[1]
            return self.diffusion.encode(projected(image, measured, mask, within, measurement), base)

        generator = Generator().manual_seed(seed)
        x_0 = self.sampler(denoise, self._start(base, generator), self.gammas, generator=generator)
        result = scale.of_channel(0).restore(self.diffusion.decode(x_0, base))
        background = inputs[:, :1].float() if measurement is None else measurement.around(inputs[:, :1].float())
        if measurement is None:
            return result.where(mask > 0, background)
        # Rounding leaves a little there; what is more keeps the measurement of slices that end within a voxel.
        small = (result - background).abs() < ROUNDING * (scale.high - scale.low)[:, :1]
        return torch.where((mask <= 0) & small, background, result)


def projected(
    image: Tensor, measured: Tensor | None, mask: Tensor, within: Tensor, measurement: Degradation | None
) -> Tensor:  # fmt: skip
    """Background as it was, then the measurement (Eq. 8): whole blocks are background, so one keeps the other.

    mask: as networks see it; within: `inside`. All (B, 1, H, W, D).
    """
    if measured is None or measurement is None:
        return image.where(within, -1.0)
    return measurement.project_within(image.where(mask > 0, measurement.around(measured)), measured, within)


class SplitUncertaintyd(MapTransform):
    """Splits `pred` (2 + k, H, W, D), as k samples give it, into `pred`, `uncertainty` (1, H, W, D) and `runs` (k, H, W, D)."""

    def __init__(self) -> None:
        super().__init__(("pred",))

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Leaves a single channel alone."""
        pred = data["pred"]
        return {**data, "pred": pred[:1], "uncertainty": pred[1:2], "runs": pred[2:]} if len(pred) > 1 else dict(data)
