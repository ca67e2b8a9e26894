# SPDX-License-Identifier: Apache-2.0
"""How much a network computes, whatever computes it: multiplications of its convolutions, nearly all of its time."""

from collections.abc import Sequence
from functools import cache
from math import prod

import torch
from torch import nn

from .presets import UNetSize
from .space_time import SpaceTimeUNet
from .unet import UNet


def multiplications(size: UNetSize, channels: int, shape: Sequence[int]) -> float:
    """Of a U-Net of this size for one slice (H, W) or volume (H, W, D) of so many channels."""
    weights = _weights(size, channels, len(shape))
    voxels = [prod(-(-side // (size.fold * 2**level)) for side in shape) for level in range(len(weights))]
    return float(sum(count * places for count, places in zip(weights, voxels, strict=True)))


def space_time_multiplications(size: UNetSize, channels: int, shape: Sequence[int]) -> float:
    """Of a `SpaceTimeUNet` for one loop (X, Y, T)."""
    with torch.device("meta"):
        network = SpaceTimeUNet(channels, 1, size)
    counts = [_convolutions(level) for level in network.encoder]
    for level, decoder in zip(reversed(range(len(counts) - 1)), network.decoder, strict=True):
        counts[level] += _convolutions(decoder)
    counts[0] += _convolutions(network.first) + _convolutions(network.last)
    pixels = [prod(-(-side // (size.fold * 2**level)) for side in shape[:2]) for level in range(len(counts))]
    return float(shape[2] * sum(count * places for count, places in zip(counts, pixels, strict=True)))


@cache
def _weights(size: UNetSize, channels: int, dims: int) -> list[int]:
    """Weights of the convolutions on every level, finest first: each is used once a place."""
    with torch.device("meta"):  # shapes alone
        network = UNet(dims, channels, 1, size)
    counts = [_convolutions(level) for level in network.encoder]
    for level, decoder in zip(reversed(range(len(counts))), network.decoder, strict=True):
        counts[level] += _convolutions(decoder.get_submodule("blocks"))
        counts[max(level - 1, 0)] += _convolutions(decoder.get_submodule("up"))
    counts[0] += _convolutions(network.first) + _convolutions(network.last)
    counts[-1] += _convolutions(network.middle_in) + _convolutions(network.middle_out)
    return counts


def _convolutions(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.dim() > 3)
