# SPDX-License-Identifier: Apache-2.0
"""The memory ladder: steps down by itself when an evaluation needs more memory than there is."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..networks.blocks import GroupNorm
from ..networks.footprint import predicted_gb
from ..networks.score_fusion import ScoreFusion
from .memory import given_back_beyond, keep_freed_memory, resident_gb, used_gb

logger = logging.getLogger(__name__)


class Need(NamedTuple):
    """Memory in GB: what the process uses before an evaluation, and what that needs beside it."""

    used: float
    more: float

    @property
    def peak(self) -> float:
        """Of the process."""
        return self.used + self.more


class Rung(NamedTuple):
    """One way to evaluate a network: the lower, the less memory and the more time; the result is the same."""

    slice_batch: int  # slices that a plane denoises at once
    slabs: int  # parts in which the 3D network is computed
    on_cpu: bool = False  # although the volume came on a GPU

    def __str__(self) -> str:
        where = " on the CPU" if self.on_cpu else ""
        return f"{self.slice_batch} slices at once, the 3D network in {self.slabs} slab{'s' * (self.slabs > 1)}{where}"


# What the allocator loses between tensors, measured: more where it keeps large blocks, and gives back what is beyond a share.
LOST_WHOLE, LOST_IN_SLABS, KEPT = 1.5, 1.1, 0.9
SMALL = 0.5  # GB that may be kept in any case: to give them back at every layer takes longer than a small volume's networks
RUNGS = (Rung(32, 1), Rung(8, 1), Rung(8, 8), Rung(1, 32))
CPU_RUNGS = tuple(rung._replace(on_cpu=True) for rung in RUNGS)


def climb_down(
    evaluate: Callable[[torch.device], Tensor], network: nn.Module, inputs: Tensor, *, half: bool,
    limit_gb: float | None = None,
) -> Tensor:  # fmt: skip
    """`evaluate(device)` on the highest rung that fits, and one lower each time that memory runs out all the same.

    inputs: (B, C, H, W, D); half: whether the networks run in bfloat16; limit_gb: use no more than this, however much is free.
    Only a `ScoreFusion` knows rungs; other networks are evaluated as they are.
    Raises BadInput when memory runs out on the lowest rung.
    """
    rungs = _rungs(network, inputs, half=half, limit_gb=limit_gb)
    for rung, device in rungs:
        try:
            if not isinstance(network, ScoreFusion):
                return evaluate(device)
            with standing_on(rung, network, inputs.shape, device, half=half):
                return evaluate(device)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            logger.warning(f"out of memory with {rung}; stepping down")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    shape = "x".join(str(side) for side in inputs.shape[2:])
    raise BadInput(f"volume of {shape}: not enough memory even on the lowest rung; crop it, or use a smaller size of network")


@contextmanager
def standing_on(
    rung: Rung, network: ScoreFusion, shape: Sequence[int], device: torch.device, *, half: bool
) -> Iterator[None]:  # fmt: skip
    """While inputs of a shape (B, C, H, W, D) are evaluated: network and allocator do as the rung says."""
    network.economize(rung.slice_batch, rung.slabs)
    keep_freed_memory(large=rung.slabs == 1)
    need = needed(network, shape, rung, device, half=half)
    norms = [module for module in network.modules() if isinstance(module, GroupNorm)]
    with given_back_beyond(need.used + max(KEPT * need.more, SMALL), norms if device.type == "cpu" else ()):
        yield


def _rungs(network: nn.Module, inputs: Tensor, *, half: bool, limit_gb: float | None) -> Iterator[tuple[Rung, torch.device]]:
    """Rungs to try in turn, from the highest that is predicted to fit; the lowest in any case."""
    ladder = RUNGS if inputs.device.type == "cpu" else RUNGS + CPU_RUNGS
    if not isinstance(network, ScoreFusion):
        ladder = tuple(rung for rung in ladder if rung[:2] == RUNGS[0][:2])
    for index, rung in enumerate(ladder):
        device = torch.device("cpu") if rung.on_cpu else inputs.device
        last = index == len(ladder) - 1
        if isinstance(network, ScoreFusion):
            need = needed(network, inputs.shape, rung, device, half=half)
            if not _fits(rung, need, device, limit_gb) and not last:
                continue
        yield rung, device


def needed(network: ScoreFusion, shape: Sequence[int], rung: Rung, device: torch.device, *, half: bool) -> Need:
    """What an evaluation of inputs of a shape (B, C, H, W, D) needs on a rung; half: in bfloat16."""
    lost = LOST_WHOLE if rung.slabs == 1 else LOST_IN_SLABS
    return Need(used_gb(device), lost * predicted_gb(network, shape, rung.slice_batch, rung.slabs, half=half))


def _fits(rung: Rung, need: Need, device: torch.device, limit_gb: float | None) -> bool:
    bounds = {"free": free_gb(device), "allowed": limit_gb}
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    fits = all(need.more <= bound for bound in known.values())
    have = ", ".join(f"{bound:.1f} GB {name}" for name, bound in known.items()) or "free memory unknown"
    used = f", {need.used:.1f} GB of them used already"
    logger.info(f"{rung}: needs about {need.peak:.1f} GB{used}{'' if fits else ', too much'} ({have})")
    return fits


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocator's, of the GPU or of the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_gb(device: torch.device) -> float | None:
    """Memory that can be had on a device, in GB; None where nobody says. Containers' limits count, and what is only kept."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + cached) / 1e9
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        left = float((group / "memory.max").read_text()) - float((group / "memory.current").read_text())
        free = min(free, left + _inactive_file(group))
    except (OSError, ValueError):  # no such limit, or "max"
        pass
    return free / 1e9 + resident_gb() - used_gb(device)


def _inactive_file(group: Path) -> float:
    """File pages that the kernel gives back when asked, in bytes."""
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return float(stat.get("inactive_file", 0))
