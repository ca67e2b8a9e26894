# SPDX-License-Identifier: Apache-2.0
"""A member that sees a loop (x, y, t) whole: convolutions in space and in time in turn."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..measurement.planes import SPACE_TIME
from .blocks import GammaEmbedding, GroupNorm, cropped, folded, unfolded, zeroed
from .plane_denoiser import POSITION_CHANNELS
from .presets import UNetSize, size_named
from .slabs import Bounds, Planes, activated, added, convolved, held, joined, repeated, slab_bounds, stored

NO_AXIS = 3  # in place of the axis that a plane is cut along


def in_space(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv3d:
    """3x3 pixels of every frame; with a stride of 2 half the size, rounded up."""
    return nn.Conv3d(channels_in, channels_out, (3, 3, 1), (stride, stride, 1), (1, 1, 0))


class SpaceTimeBlock(nn.Module):
    """Norm, SiLU, convolution in space, norm, scaled and shifted by the embedding, SiLU, convolution in time, which starts at
    zero; added to the input.
    """

    def __init__(self, channels_in: int, channels_out: int, embedding: int, *, groups: int) -> None:
        super().__init__()
        self.norm_in = GroupNorm(min(groups, channels_in), channels_in)
        self.space = in_space(channels_in, channels_out)
        self.embed = nn.Linear(embedding, 2 * channels_out)
        self.norm_out = GroupNorm(min(groups, channels_out), channels_out)
        self.time = zeroed(nn.Conv3d(channels_out, channels_out, (1, 1, 3), padding=(0, 0, 1)))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W, T), (B, E) -> (B, C_out, H, W, T)."""
        scale, shift = self._scale_and_shift(embedding)
        h = self.norm_out(self.space(F.silu(self.norm_in(x)))) * (1.0 + scale) + shift
        return self.skip(x) + self.time(F.silu(h))

    def _scale_and_shift(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.embed(F.silu(embedding))[:, :, None, None, None].chunk(2, dim=1)
        return scale, shift

    @torch.jit.unused
    def in_slabs(self, x: Planes, embedding: Tensor, bounds: Bounds) -> Tensor:
        """As `forward`, of a map that is never held whole."""
        length = bounds[-1][1]
        h = stored(convolved(activated(x, self.norm_in, bounds), self.space, length), bounds)
        normed = activated(held(h), self.norm_out, bounds, self._scale_and_shift(embedding))
        return stored(added(convolved(normed, self.time, length), lambda start, stop: self.skip(x(start, stop))), bounds, out=h)


class SpaceTimeLevel(nn.Module):
    """Resamples space, or not, then blocks. channels: of what comes, of what a skip adds, and of what goes."""

    def __init__(self, resample: nn.Module, channels: tuple[int, int, int], size: UNetSize) -> None:
        super().__init__()
        self.resample = resample
        coming, added, going = channels
        sources = [coming + added] + [going] * size.blocks
        self.blocks = nn.ModuleList(SpaceTimeBlock(source, going, 4 * size.width, groups=size.groups) for source in sources)

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None) -> Tensor:
        """With a skip the level is brought up to it first."""
        if skip is not None:
            x = cropped(F.interpolate(x, scale_factor=[2.0, 2.0, 1.0]), list(skip.shape[2:]))
        h = self.resample(x)
        if skip is not None:
            h = torch.cat([h, skip], dim=1)
        for block in self.blocks:
            h = block(h, embedding)
        return h

    @torch.jit.unused
    def in_slabs(self, x: Planes, embedding: Tensor, bounds: Bounds) -> Tensor:
        """The blocks, of a map that has been resampled and joined."""
        for block in self.blocks:
            h = block.in_slabs(x, embedding, bounds)  # type: ignore[operator]
            x = held(h)
        return h


class SpaceTimeUNet(nn.Module):
    """A U-Net whose frames are never merged: space alone is folded and halved, so that fast motion keeps its time."""

    def __init__(self, channels_in: int, channels_out: int, size: UNetSize) -> None:
        super().__init__()
        self.fold, folds = size.fold, size.fold**2
        self.slabs = 1  # more: compute a loop part by part, without gradients; the result is the same, in less memory
        self.embed = GammaEmbedding(size.width, 4 * size.width)
        widths = [size.width * multiplier for multiplier in size.multipliers]
        steps = list(pairwise(widths))
        self.first = in_space(channels_in * folds, widths[0])
        down = [SpaceTimeLevel(in_space(fine, coarse, stride=2), (coarse, 0, coarse), size) for fine, coarse in steps]
        self.encoder = nn.ModuleList([SpaceTimeLevel(nn.Identity(), (widths[0], 0, widths[0]), size), *down])
        up = [SpaceTimeLevel(in_space(coarse, fine), (fine, fine, fine), size) for fine, coarse in reversed(steps)]
        self.decoder = nn.ModuleList(up)
        self.norm = GroupNorm(min(size.groups, widths[0]), widths[0])
        self.last = zeroed(in_space(widths[0], channels_out * folds))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Tensor, gamma: Tensor) -> Tensor:
        """x: (B, C, H, W, T); gamma: (B,). Returns (B, C_out, H, W, T)."""
        if self.slabs > 1 and not torch.is_grad_enabled():
            return self._in_slabs(x, gamma)
        embedding = self.embed(gamma)
        h = self.first(_folded(x, self.fold).contiguous(memory_format=torch.channels_last_3d))
        skips: list[Tensor] = []
        for level in self.encoder:
            h = level(h, embedding, None)
            skips.append(h)
        skips.pop()
        for level in self.decoder:
            h = level(h, embedding, skips.pop())
        return _unfolded(self.last(F.silu(self.norm(h))), self.fold, list(x.shape[2:4]))

    @torch.jit.unused
    def _in_slabs(self, x: Tensor, gamma: Tensor) -> Tensor:
        """As `forward`, in `slabs`. What is folded, and the first convolution of it, are computed wherever they are read."""
        embedding, sides, fold = self.embed(gamma), list(x.shape[2:4]), self.fold
        size = [-(-side // fold) for side in sides]
        read = convolved(lambda start, stop: _folded(x[:, :, fold * start : fold * stop], fold), self.first, size[0])
        skips: list[Tensor] = []
        for level in self.encoder:
            if skips:
                h = level.resample(skips[-1])  # type: ignore[operator]
                read, size = held(h), list(h.shape[2:4])
            skips.append(level.in_slabs(read, embedding, slab_bounds(size[0], self.slabs)))  # type: ignore[operator]
        h = skips.pop()
        for level in self.decoder:
            size = list(skips[-1].shape[2:])
            read = joined(convolved(repeated(h, size), level.resample, size[0]), held(skips.pop()))  # type: ignore[arg-type]
            h = level.in_slabs(read, embedding, slab_bounds(size[0], self.slabs))  # type: ignore[operator]
        bounds = slab_bounds(size[0], self.slabs)
        return _unfolded(stored(convolved(activated(held(h), self.norm, bounds), self.last, size[0]), bounds), self.fold, sides)


def _folded(x: Tensor, fold: int) -> Tensor:
    """As `folded`, of every frame."""
    return folded(x.movedim(4, 1).flatten(0, 1), fold).unflatten(0, [x.shape[0], -1]).movedim(1, 4)


def _unfolded(x: Tensor, fold: int, size: list[int]) -> Tensor:
    return unfolded(x.movedim(4, 1).flatten(0, 1), fold, size).unflatten(0, [x.shape[0], -1]).movedim(1, 4)


class SpaceTimeDenoiser(nn.Module):
    """Denoises a loop; what it sees is what a plane of one slice does.

    >>> SpaceTimeDenoiser(size="tiny")(torch.zeros(1, 5, 20, 20, 10)).shape
    torch.Size([1, 1, 20, 20, 10])
    """

    def __init__(self, conditions: int = 1, size: str = "compact") -> None:
        super().__init__()
        self.unet = SpaceTimeUNet(conditions + POSITION_CHANNELS + 1, 1, size_named(size).plane)

    def forward(self, x: Tensor, x_t: Tensor | None = None, timesteps: Tensor | None = None) -> Tensor:
        """The estimate (epsilon, x_0 or v) for a noisy loop (B, 1, X, Y, T); arguments as for `ScoreFusion`."""
        if x_t is None:
            x_t = torch.zeros_like(x[:, :1])
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        return self.unet(torch.cat([x, x_t], dim=1), timesteps)


class SpaceTimeMember(nn.Module):
    """The member of a fusion that is no plane; it gives no features, for its estimate is in 3D already."""

    def __init__(self, conditions: int, size: str) -> None:
        super().__init__()
        self.plane, self.axis, self.group = SPACE_TIME, NO_AXIS + 2, 1
        self.conditions = conditions
        self.register_buffer("plane_axis", torch.tensor(NO_AXIS))
        self.denoiser = SpaceTimeDenoiser(conditions, size)
        self.alignments = nn.ModuleList([])

    def forward(self, x: Tensor, x_t: Tensor, gamma: Tensor, slice_batch: int) -> tuple[Tensor, list[Tensor]]:
        """The estimate (B, 1, H, W, T); as `Member`."""
        maps: list[Tensor] = []
        return self.denoiser(x, x_t, gamma), maps

    @torch.jit.unused
    def recalled(self, maps: list[Tensor], sides: list[int]) -> list[Tensor]:
        """As `Member`: no features."""
        return []
