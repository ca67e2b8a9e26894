# SPDX-License-Identifier: Apache-2.0
"""3D maps computed a slab of the first spatial axis at a time, without gradients: the same results to rounding, in less memory.

A map that is never held whole is a function that computes the planes one asks for.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import LinearUp, ResidualBlock, cropped

Planes = Callable[[int, int], Tensor]  # (first, last plus one) -> (B, C, planes, W, D)
Bounds = list[tuple[int, int]]  # of every slab, in order


def slab_bounds(length: int, slabs: int) -> Bounds:
    """First and last-plus-one place of each of at most `slabs` parts of an axis."""
    step = -(-length // slabs)
    return list(pairwise([*range(0, length, step), length]))


def held(x: Tensor) -> Planes:
    """A map that is in memory."""
    return lambda start, stop: x[:, :, start:stop]


def joined(first: Planes, second: Planes) -> Planes:
    """Channels of two maps."""
    return lambda start, stop: torch.cat([first(start, stop), second(start, stop)], dim=1)


def added(first: Planes, second: Planes) -> Planes:
    """Sum of two maps."""
    return lambda start, stop: first(start, stop) + second(start, stop)


def convolved(x: Planes, conv: nn.Module, length: int) -> Planes:
    """A convolution that is 3 or 1 wide along each axis and keeps the size, padded as it says, of a map of so many planes."""
    mode = "replicate" if conv.padding_mode == "replicate" else "constant"
    reach, width, depth = (side // 2 for side in conv.kernel_size)  # type: ignore[union-attr]

    def planes(start: int, stop: int) -> Tensor:
        part = x(max(start - reach, 0), min(stop + reach, length))
        part = F.pad(part, [depth, depth, width, width, reach * (start == 0), reach * (stop == length)], mode=mode)
        part = part.contiguous(memory_format=torch.channels_last_3d)
        return F.conv3d(part, conv.weight, conv.bias)  # type: ignore[arg-type]

    return planes


def upsampled(x: Tensor, up: LinearUp, size: list[int]) -> Planes:
    """What `up` makes of a map in memory."""

    def fine(start: int, stop: int) -> Tensor:
        first = max(start // 2 - 1, 0)
        part = F.interpolate(x[:, :, first : (stop + 1) // 2 + 1], scale_factor=2.0, mode="trilinear", align_corners=False)
        return cropped(part[:, :, start - 2 * first :], [stop - start, *size[1:]])

    return convolved(fine, up.conv, size[0])


def repeated(x: Tensor, size: list[int]) -> Planes:
    """A map in memory with every voxel twice along the first two axes, cropped to a size."""

    def fine(start: int, stop: int) -> Tensor:
        part = F.interpolate(x[:, :, start // 2 : (stop + 1) // 2], scale_factor=[2.0, 2.0, 1.0])
        return cropped(part[:, :, start % 2 :], [stop - start, *size[1:]])

    return fine


def activated(x: Planes, norm: nn.GroupNorm, bounds: Bounds, after: tuple[Tensor, Tensor] | None = None) -> Planes:
    """`silu(norm(x))` with the statistics of the whole map; after: what norms are scaled by, beside one, and shifted by."""
    scale, shift = group_affine(x, norm, bounds)
    if after is not None:
        scale, shift = scale * (1.0 + after[0]), shift * (1.0 + after[0]) + after[1]

    def planes(start: int, stop: int) -> Tensor:
        part = x(start, stop)
        normed = part.to(scale.dtype, copy=True).mul_(scale).add_(shift)
        return F.silu(normed, inplace=True).to(part.dtype)

    return planes


def group_affine(x: Planes, norm: nn.GroupNorm, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Scale and shift (B, C, 1, 1, 1), float32, which do what `norm` does to x; its statistics are summed slab by slab."""
    length = bounds[-1][1]
    moments = torch.stack([_moments(x(start, stop)) * ((stop - start) / length) for start, stop in bounds]).sum(dim=0)
    mean, square = moments.unflatten(2, [norm.num_groups, -1]).mean(dim=3, keepdim=True)
    weight, bias = (parameter.double().unflatten(0, [norm.num_groups, -1]) for parameter in (norm.weight, norm.bias))
    scale = weight * (square - mean.square() + norm.eps).rsqrt()
    shift = bias - scale * mean
    return scale.flatten(1).float()[:, :, None, None, None], shift.flatten(1).float()[:, :, None, None, None]


def _moments(x: Tensor) -> Tensor:
    """Mean and mean square of every channel: (2, B, C) in float64."""
    variance, mean = torch.var_mean(x.float(), dim=(2, 3, 4), correction=0)
    return torch.stack([mean.double(), variance.double() + mean.double().square()])


def stored(x: Planes, bounds: Bounds, out: Tensor | None = None) -> Tensor:
    """A map brought into memory, into `out` where given.

    A slab is written when the next one has been computed, so that `x` may be a convolution of `out` itself.
    """
    start, stop = bounds[0]
    part = x(start, stop)
    if out is None:
        shape = [*part.shape[:2], bounds[-1][1], *part.shape[3:]]
        out = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last_3d)
    for following in bounds[1:]:
        coming = x(*following)
        out[:, :, start:stop] = part
        (start, stop), part = following, coming
    out[:, :, start:stop] = part
    return out


def residual(block: ResidualBlock, x: Planes, embedding: Tensor, bounds: Bounds) -> Tensor:
    """What a block that does not resample makes of a map."""
    length = bounds[-1][1]
    h = stored(convolved(activated(x, block.norm_in, bounds), block.conv_in, length), bounds)
    h += block.embed(F.silu(embedding))[:, :, None, None, None]
    change = convolved(activated(held(h), block.norm_out, bounds), block.conv_out, length)
    return stored(added(change, lambda start, stop: block.skip(x(start, stop))), bounds, out=h)
