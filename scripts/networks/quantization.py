# SPDX-License-Identifier: Apache-2.0
"""Convolutions in 8-bit integers: what they see is rounded to a range of its own, their weights channel by channel."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..files import read_json, sha256, write_json

Ranges = dict[str, float]  # the largest absolute value that each convolution is to see, by its name in the network
# Of 127: CPUs without VNNI add pairs of products in 16 bits, where two of a larger weight overflow.
LARGEST_WEIGHT = 64
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


class IntegerConvolution(nn.Module):
    """A convolution of integers, simulated in floating point; compilers that know 8-bit integers compute it in these.

    conv: whose weights are rounded; bound: what it sees is cut off here, on either side, and rounded to 255 values.
    """

    def __init__(self, conv: nn.Module, bound: float) -> None:
        super().__init__()
        self.conv, self.scale = conv, max(bound, 1.0e-6) / 127
        weight: Tensor = conv.weight.detach()  # type: ignore[operator]
        scales = weight.flatten(1).abs().amax(dim=1).clamp(min=1.0e-12) / LARGEST_WEIGHT
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("zeros", torch.zeros_like(scales, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution does."""
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(self.conv.weight, self.scales, self.zeros, 0, -127, 127)  # type: ignore[arg-type]
        return self.conv._conv_forward(x, weight, self.conv.bias)  # type: ignore[operator]


def quantized(network: nn.Module, ranges: Ranges) -> nn.Module:
    """A copy of a network whose convolutions are of integers where a range is known."""
    copy = deepcopy(network)
    for name, bound in ranges.items():
        copy.set_submodule(name, IntegerConvolution(copy.get_submodule(name), bound))
    return copy


@contextmanager
def observed(network: nn.Module) -> Iterator[Ranges]:
    """Ranges of the U-Nets' convolutions that fill while a network is called: the mean over calls of the largest value."""
    ranges: Ranges = {}
    seen: dict[str, list[float]] = {}

    def watch(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.setdefault(name, []).append(float(inputs[0].abs().amax()))
            ranges[name] = sum(seen[name]) / len(seen[name])

        hooks.append(network.get_submodule(name).register_forward_pre_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS) and "unet." in name:
            watch(name)
    try:
        yield ranges
    finally:
        for handle in hooks:
            handle.remove()


class _Known(NamedTuple):
    """Ranges, and the state of the parameters that they are of."""

    ranges: Ranges
    versions: list[int]


def attach_ranges(network: nn.Module, ranges: Ranges) -> None:
    """Let a network know the ranges of the weights that it has now."""
    network.ranges = _Known(ranges, _versions(network))  # type: ignore[assignment]


def known_ranges(network: nn.Module) -> Ranges:
    """The ranges of a network; none when nobody knows them, or when its parameters were changed since."""
    known = getattr(network, "ranges", None)
    return known.ranges if isinstance(known, _Known) and known.versions == _versions(network) else {}


def _versions(network: nn.Module) -> list[int]:
    return [parameter._version for parameter in network.parameters()]


def ranges_file(weights: Path) -> Path:
    """Where the ranges of a weights file lie: beside it."""
    return weights.with_suffix(".int8.json")


def write_ranges(weights: str | Path, ranges: Ranges) -> Path:
    """Write the ranges of a weights file, rounded to what matters; returns the path."""
    content = {name: float(f"{bound:.4g}") for name, bound in ranges.items()}
    write_json(path := ranges_file(Path(weights)), {"weights": sha256(Path(weights)), "ranges": content})
    return path


def read_ranges(weights: Path) -> Ranges:
    """The ranges of a weights file; none where there is no file of them. Raises BadInput when they are of other weights."""
    if not (path := ranges_file(weights)).is_file():
        return {}
    content = read_json(path, "calibrate again (score-fusion calibrate)")
    if content.get("weights") != sha256(weights):
        raise BadInput(
            f"{path}: ranges of other weights than {weights.name}; calibrate again (score-fusion calibrate) or delete it"
        )
    return {str(name): float(bound) for name, bound in content["ranges"].items()}
