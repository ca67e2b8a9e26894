# SPDX-License-Identifier: Apache-2.0
"""How fast one network evaluation is, against this machine's limit and against MONAI's own networks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..inferers.memory import keep_freed_memory, peak_memory_gb
from ..inferers.precision import autocast, has_bfloat16
from ..networks import ScoreFusion
from ..networks.presets import UNetSize, size_named

PLAIN_SLICES, PLAIN_CROP = 8, 64  # the plain way is timed on one batch of slices and one crop, and scaled by voxels


def benchmark(size: str, shape: Sequence[int], *, json_path: str | None = None) -> dict[str, float]:
    """Measure and print: convolution limits, MONAI's networks of this size in float32, and ours, for one evaluation.

    shape: voxels (H, W, D). The plain way runs first, before the allocator is told to keep memory.
    """
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = has_bfloat16(device)
    figures = {"plain: s": _plain(size, shape, device)}
    keep_freed_memory()
    figures["limit float32: GFLOP/s"] = _limit(device, torch.float32)
    figures["limit bfloat16: GFLOP/s"] = _limit(device, torch.bfloat16) if half else 0.0
    seconds, flops = _ours(size, shape, device)
    limit = figures["limit bfloat16: GFLOP/s" if half else "limit float32: GFLOP/s"]
    figures |= {
        "ours: s": seconds,
        "ours: GFLOP": flops / 1e9,
        "ours: GFLOP/s": flops / 1e9 / seconds,
        "ours / limit": flops / 1e9 / seconds / limit,
        "plain / ours (times faster)": figures["plain: s"] / seconds,
        "peak memory: GB": peak_memory_gb(),
    }
    print(f"{size}, {'x'.join(map(str, shape))} voxels, {torch.get_num_threads()} threads, {device.type}")
    for name, value in figures.items():
        print(f"{name:32}{value:12.2f}")
    if json_path:
        content = {"size": size, "shape": list(shape), "device": device.type, **figures}
        Path(json_path).write_text(json.dumps(content, indent=2))
    return figures


def _seconds(work: Callable[[], Any], device: torch.device, repeats: int = 2) -> float:
    """The fastest of some runs after a warm-up."""
    best = float("inf")
    for run in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start) if run else best
    return best


@torch.no_grad()
def _limit(device: torch.device, dtype: torch.dtype) -> float:
    """The rate of a large 3D convolution of 64 channels, the best any network of them could reach."""
    layout = torch.channels_last_3d
    convolution = nn.Conv3d(64, 64, 3, padding=1, bias=False).to(device, dtype).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(1, 64, 64, 64, 64, device=device).to(dtype).contiguous(memory_format=layout)
    return 2 * 27 * 64 * 64 * x[0, 0].numel() / 1e9 / _seconds(lambda: convolution(x), device, repeats=5)


@torch.no_grad()
def _ours(size: str, shape: Sequence[int], device: torch.device) -> tuple[float, float]:
    network = ScoreFusion(size=size, features=size == "published").to(device).eval()
    x = torch.randn(1, 5, *shape, device=device)

    def evaluate() -> Tensor:
        with autocast(device):
            return network(x, x_t=x[:, :1], timesteps=torch.full((1,), 0.5, device=device))

    with FlopCounterMode(display=False) as counter:
        evaluate()
    return _seconds(evaluate, device, repeats=1), float(counter.get_total_flops())


@torch.no_grad()
def _plain(size: str, shape: Sequence[int], device: torch.device) -> float:
    """Seconds of two planes and a 3D network made of MONAI's parts, without features, scaled from a part by voxels."""
    voxels, preset = shape[0] * shape[1] * shape[2], size_named(size)
    plane = _plain_network(2, 6, 1, preset.plane).to(device)
    fusion = _plain_network(3, 8, 2, preset.fusion).to(device)
    slices = torch.randn(PLAIN_SLICES, 6, shape[0], shape[2], device=device)
    crop = torch.randn(1, 8, PLAIN_CROP, PLAIN_CROP, PLAIN_CROP, device=device)
    seconds = 0.0
    for network, part, members in ((plane, slices, 2), (fusion, crop, 1)):
        times = torch.full((len(part),), 500, device=device)
        taken = _seconds(lambda n=network, p=part, t=times: n(p, t), device, repeats=1)  # type: ignore[misc]
        seconds += members * taken * voxels / part[:, 0].numel()
    return seconds


def _plain_network(dims: int, channels_in: int, channels_out: int, size: UNetSize) -> nn.Module:
    channels = [size.width * multiplier for multiplier in size.multipliers]
    return DiffusionModelUNet(
        dims, channels_in, channels_out, num_res_blocks=size.blocks, channels=channels,
        attention_levels=[False] * len(channels), norm_num_groups=size.groups, resblock_updown=dims == 2,
        num_head_channels=channels[-1] // max(size.heads, 1), use_flash_attention=True,
    ).eval()  # fmt: skip
