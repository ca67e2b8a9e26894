# SPDX-License-Identifier: Apache-2.0
"""How fast we are, against this machine's limit and against what a user would build from MONAI's parts."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..data.doubts import by
from ..data.volumes import SMALLEST_GRID
from ..errors import BadInput
from ..files import write_json
from ..inferers.devices import device_name
from ..inferers.memory import keep_freed_memory, peak_memory_gb
from ..inferers.precision import autocast, has_bfloat16
from ..networks import ScoreFusion
from ..networks.engine import compile_unets, has_openvino, release_unets
from ..networks.presets import UNetSize, size_named
from ..networks.quantization import Ranges, observed

PLAIN_SLICES, PLAIN_CROP = 8, 64  # the plain way is timed on one batch of slices and one crop, and scaled by voxels
PLAIN_STEPS = 50
RANGES_CROP = 64  # voxels a side of the noise that ranges for integers are taken of: their time depends on no values
LIMIT_SIDE, LIMIT_MATRIX = 64, 4096  # of the convolution and of the matrices that show what the machine can do
LONG = 20.0  # seconds: what takes longer is timed once, without a warm-up


def speed(
    size: str = "compact", shape: Sequence[int] = (192, 192, 152), *,
    box: Sequence[int] = (144, 172, 140),
    steps: int = 1, planes: Sequence[str] = ("coronal", "sagittal"), precision: str = "auto", json_path: str | None = None,
) -> dict[str, float]:  # fmt: skip
    """Measure and print the table: limits, the plain ways, ours, per step, per volume and per training sample.

    shape: voxels (H, W, D) of the volume, of which the plain ways compute everything; box: of the head in it, which is all that
    ours computes; steps: of our sampler, against 50 of the plain ways; precision: "auto" takes bfloat16 where the device has
    it, "float32" is what a machine without it would get. The plain way is what MONAI's parts do by themselves; the best plain
    way gives them channels-last layouts, the better precision and kept memory. The former runs first, before the allocator is
    told to keep memory. OpenVINO is measured where it is installed.
    """
    if min(*shape, *box) < SMALLEST_GRID or steps < 1:
        raise BadInput(f"shape {by(shape)}, box {by(box)}, steps {steps}: a side has {SMALLEST_GRID} voxels at least, steps 1")
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = precision != "float32" and has_bfloat16(device)
    plain, plain_training = _plain(size, shape, device, len(planes)), _plain_training(size, device)
    keep_freed_memory()
    best = _plain(size, shape, device, len(planes), best=True, half=half)
    limits = {name: limit for dtype in _dtypes(half) for name, limit in _limits(device, dtype).items()}
    limit = limits[f"limit, convolution {_dtypes(half)[-1]}: GFLOP/s"]
    network = ScoreFusion(planes, size=size, features=True).to(device).eval()
    ways = {"torch": (None, half)} | (_engines(network, box, half) if device.type == "cpu" and has_openvino() else {})
    boxed = {name: _seconds(network, box, device, *way) for name, way in ways.items()}
    seconds, flops = _seconds(network, shape, device, None, half), _flops(size, shape, planes)
    training = _our_training(size, device, half)
    figures = {
        "ours / limit": flops / seconds / 1e9 / limit,
        "plain / ours, a step, same voxels": plain / seconds,
        "best plain / ours, a step, same voxels": best / seconds,
        "plain / ours, a step, a head": plain / boxed["torch"],
        "best plain / ours, a step, a head": best / boxed["torch"],
        f"plain {PLAIN_STEPS} steps / ours {steps}, a volume with a head": plain * PLAIN_STEPS / (boxed["torch"] * steps),
        "plain / ours, a training sample of a plane": plain_training / training,
        **limits,
        "plain, a step: s": plain,
        "best plain, a step: s": best,
        "ours, a step: s": seconds,
        "ours, a step: GFLOP": flops / 1e9,
        "ours, a step: GFLOP/s": flops / seconds / 1e9,
        **{f"ours, a step, the head's box, {name}: s": value for name, value in boxed.items()},
        **{f"torch / {name}, the head's box": boxed["torch"] / value for name, value in boxed.items() if name != "torch"},
        "plain, a training sample of a plane: s": plain_training,
        "ours, a training sample of a plane: s": training,
        "peak memory: GB": peak_memory_gb(),
    }
    about = {
        "size": size, "planes": list(planes), "shape": list(shape), "box": list(box), "steps": steps,
        "device": device_name(device), "precision": _dtypes(half)[-1], "backends": list(ways),
    }  # fmt: skip
    _report(about, figures, json_path)
    return figures


def _engines(network: ScoreFusion, box: Sequence[int], half: bool) -> dict[str, tuple[Ranges | None, bool]]:
    """What OpenVINO is asked for: convolutions in floating point, and in integers of the ranges that noise makes them see."""
    with torch.no_grad(), observed(network) as ranges:
        network(torch.randn(1, 5, *(min(side, RANGES_CROP) for side in box)))
    return {f"openvino {_dtypes(half)[-1]}": ({}, half), "openvino int8": (dict(ranges), half)}


def _report(about: dict[str, Any], figures: dict[str, float], json_path: str | None) -> None:
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    for name, value in figures.items():
        print(f"{name:52}{value:12.2f}")
    if json_path:
        write_json(json_path, {**about, **figures})


def _dtypes(half: bool) -> list[str]:
    return ["float32", "bfloat16"] if half else ["float32"]


def seconds_of(work: Callable[[], Any], device: torch.device, repeats: int = 2) -> float:
    """The fastest of some runs after a warm-up; of one run when that takes long."""
    taken: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
        if taken[0] > LONG:
            return taken[0]
    return min(taken[1:])


@torch.no_grad()
def _limits(device: torch.device, dtype: str) -> dict[str, float]:
    """The rates of a large 3D convolution of 64 channels and of a matrix product: the best any network could reach."""
    kind, layout = getattr(torch, dtype), torch.channels_last_3d
    convolution = nn.Conv3d(64, 64, 3, padding=1, bias=False).to(device, kind).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(1, 64, LIMIT_SIDE, LIMIT_SIDE, LIMIT_SIDE, device=device).to(kind).contiguous(memory_format=layout)
    matrix = torch.randn(LIMIT_MATRIX, LIMIT_MATRIX, device=device).to(kind)
    convolving, multiplying = 2 * 27 * 64 * 64 * LIMIT_SIDE**3 / 1e9, 2 * LIMIT_MATRIX**3 / 1e9
    return {
        f"limit, convolution {dtype}: GFLOP/s": convolving / seconds_of(lambda: convolution(x), device, 5),
        f"limit, matrix product {dtype}: GFLOP/s": multiplying / seconds_of(lambda: matrix @ matrix, device, 5),
    }


@torch.no_grad()
def _seconds(network: ScoreFusion, shape: Sequence[int], device: torch.device, ranges: Ranges | None, half: bool) -> float:
    """Seconds of one evaluation: by PyTorch, or, given ranges, by OpenVINO."""
    x = torch.randn(1, 5, *shape, device=device)

    def evaluate(x: Tensor = x) -> Tensor:
        with autocast(device, half):
            return network(x, x_t=x[:, :1], timesteps=torch.full((1,), 0.5, device=device))

    if ranges is not None:
        compile_unets(network, ranges, half=half)
        evaluate(x[..., :SMALLEST_GRID, :SMALLEST_GRID, :SMALLEST_GRID])  # exports
    try:
        return seconds_of(evaluate, device, repeats=1)
    finally:
        release_unets(network)


def _flops(size: str, shape: Sequence[int], planes: Sequence[str]) -> float:
    with torch.device("meta"):
        return operations(ScoreFusion(planes, size=size, features=True).eval(), shape)


@torch.no_grad()
def operations(idle: ScoreFusion, shape: Sequence[int]) -> float:
    """Floating point operations of one evaluation of (H, W, D) voxels, by a network on the meta device: nothing is computed."""
    x = torch.zeros(1, 5, *shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        idle(x, x[:, :1], torch.zeros(1, device="meta"))
    return float(counter.get_total_flops())


@torch.no_grad()
def _plain(
    size: str, shape: Sequence[int], device: torch.device, planes: int, *, best: bool = False, half: bool = False
) -> float:  # fmt: skip
    """Seconds of planes and a 3D network made of MONAI's parts, without features, scaled from a part by voxels.

    Slices in batches of 8, every voxel; folded presets are given folded input. Float32 and contiguous unless `best`.
    """
    voxels, preset = shape[0] * shape[1] * shape[2], size_named(size)
    seconds = 0.0
    parts = (((PLAIN_SLICES, 6, shape[0], shape[2]), planes, 1, preset.plane),
             ((1, 6 + planes, PLAIN_CROP, PLAIN_CROP, PLAIN_CROP), 1, planes, preset.fusion))  # fmt: skip
    for sides, members, channels_out, preset_size in parts:
        network = plain_network(len(sides) - 2, sides[1], channels_out, preset_size).to(device).eval()
        part = _folded_noise(sides, preset_size.fold, device)
        if best:
            layout = torch.channels_last if len(sides) == 4 else torch.channels_last_3d
            network, part = network.to(memory_format=layout), part.contiguous(memory_format=layout)  # type: ignore[call-overload]
        times = torch.full((len(part),), 500, device=device)
        with autocast(device, half):
            taken = seconds_of(lambda n=network, p=part, t=times: n(p, t), device, repeats=1)  # type: ignore[misc]
        seconds += members * taken * voxels / (part.numel() / sides[1])
    return seconds


def _folded_noise(sides: Sequence[int], fold: int, device: torch.device) -> Tensor:
    """Noise with the voxels (B, C, ...) of `sides`, `fold` a side as channels."""
    return torch.randn(sides[0], sides[1] * fold ** (len(sides) - 2), *(side // fold for side in sides[2:]), device=device)


def plain_network(dims: int, channels_in: int, channels_out: int, size: UNetSize) -> nn.Module:
    """MONAI's network of the shape of ours, for input that is folded already."""
    channels = [size.width * multiplier for multiplier in size.multipliers]
    folds = size.fold**dims
    return DiffusionModelUNet(
        dims, channels_in * folds, channels_out * folds, num_res_blocks=size.blocks, channels=channels,
        attention_levels=[False] * len(channels), norm_num_groups=size.groups, resblock_updown=dims == 2,
        num_head_channels=channels[-1] // max(size.heads, 1), use_flash_attention=True,
    )  # fmt: skip


def _plain_training(size: str, device: torch.device) -> float:
    """Seconds a slice of 96x96 of one optimiser step of MONAI's network, float32."""
    preset = size_named(size).plane
    network = plain_network(2, 6, 1, preset).to(device)
    x = _folded_noise((PLAIN_SLICES, 6, 96, 96), preset.fold, device)
    return _training_step(lambda: network(x, torch.full((len(x),), 500, device=device)), network, device)


def _our_training(size: str, device: torch.device, half: bool) -> float:
    """Seconds a slice of 96x96 of one optimiser step of ours."""
    network = ScoreFusion(["coronal"], size=size, fusion=False).to(device).members[0].get_submodule("denoiser")
    x = torch.randn(PLAIN_SLICES, 6, 96, 96, device=device)

    def denoise() -> Tensor:
        with autocast(device, half):
            return network(x[:, :5], x[:, 5:], torch.full((len(x),), 0.5, device=device)).float()

    return _training_step(denoise, network, device)


def _training_step(forward: Callable[[], Tensor], network: nn.Module, device: torch.device) -> float:
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        forward().square().mean().backward()
        optimizer.step()

    return seconds_of(step, device) / PLAIN_SLICES
