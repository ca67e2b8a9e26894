# SPDX-License-Identifier: Apache-2.0
"""Seconds a step of the fusion's training: planes computed at every step, and what they said kept on disk."""

import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, profiler
from torch.utils.data import default_collate

from ..data.patches import PatchDataset, VolumePatch
from ..diffusion import Diffusion
from ..errors import BadInput
from ..inferers.precision import MixedPrecisionInferer
from ..networks import ScoreFusion
from ..training import NoiseLoss, NoisyBatch, PlaneCache, RecallingFusion
from .speed import seconds_of

BOX, PATCH, SHARE = (144, 172, 140), (64, 64, 64), 0.7  # a head; what configs/train_3d.yaml trains on


def training_speed(
    size: str = "compact", *, precision: str = "auto", steps: int = 10, box: tuple[int, ...] = BOX, profile: bool = False
) -> dict[str, float]:
    """Measure and print the seconds of a step, from drawing a patch to the new weights, on one volume of noise.

    steps: of each kind, of which the fastest counts; box: the volume's voxels; profile: print the operators of a step with kept
    planes too, by the time they take themselves. Raises BadInput for no steps.
    """
    if steps < 1:
        raise BadInput(f"--steps {steps}: give 1 and more")
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = ScoreFusion(size=size).to(device)
    with TemporaryDirectory() as folder:
        cut = VolumePatch(PATCH, (4, 4, 4))
        dataset = PatchDataset([{"image": [], "label": []}], _Noise(box), cache_dir=Path(folder), patch=cut, samples=steps)
        cache = PlaneCache(network, dataset, epochs=10**6, share=SHARE, precision=precision)
        step = _Step(network, dataset, precision, device)
        live = step.seconds(steps, None)
        began = time.perf_counter()
        cache.prepare()
        filling = time.perf_counter() - began
        kept = step.seconds(steps, cache)
        if profile:
            _profile(lambda: step(0, step.batches(cache)))
    mean = SHARE * kept + (1 - SHARE) * live
    figures = {
        "planes live, a step: s": live, "planes kept, a step: s": kept, f"{SHARE:.0%} of the steps kept, a step: s": mean,
        "live / kept, a step": live / mean, "filling, a volume: s": filling,
    }  # fmt: skip
    print(f"size {size}, precision {precision}, device {device.type}, threads {torch.get_num_threads()}")
    for name, value in figures.items():
        print(f"{name:52}{value:12.3f}")
    return figures


class _Noise:
    """A made-up volume in the place of a preprocessing."""

    def __init__(self, box: tuple[int, ...]) -> None:
        self.box = box

    def __call__(self, case: Any) -> dict[str, Tensor]:
        image = torch.randn(2, *self.box).clamp(-1, 1)
        return {"image": image, "label": image[:1]}


class _Step:
    """A step of a training as `train_3d.yaml` makes it, without the engine around it."""

    def __init__(self, network: ScoreFusion, dataset: PatchDataset, precision: str, device: torch.device) -> None:
        self.dataset, self.device, self.loss = dataset, device, NoiseLoss()
        self.network, self.inferer = RecallingFusion(network).train(), MixedPrecisionInferer(precision)
        self.optimizer = torch.optim.Adam(self.network.parameters())

    def batches(self, cache: PlaneCache | None) -> NoisyBatch:
        return NoisyBatch(Diffusion(sigma_data=0.058, regression_share=1 - 1e-9), kept=cache)

    def __call__(self, index: int, batches: NoisyBatch) -> None:
        x, target, _, noisy = batches(default_collate([self.dataset[index]]), self.device)
        self.optimizer.zero_grad()
        self.loss(self.inferer(x, self.network, **noisy), target).backward()
        self.optimizer.step()

    def seconds(self, steps: int, cache: PlaneCache | None) -> float:
        """Of the fastest of so many steps."""
        self.network.train()
        batches, indices = self.batches(cache), count()
        return seconds_of(lambda: self(next(indices), batches), self.device, steps)


def _profile(work: Any) -> None:
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as record:
        work()
    print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))
