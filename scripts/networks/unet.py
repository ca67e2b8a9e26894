# SPDX-License-Identifier: Apache-2.0
"""The U-Net of guided diffusion in 2D and of Med-DDPM in 3D: one skeleton."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import (
    Attention,
    GammaEmbedding,
    GroupNorm,
    LinearUp,
    ResidualBlock,
    StridedDown,
    convolution,
    folded,
    unfolded,
    zeroed,
)
from .presets import UNetSize
from .slabs import Planes, activated, added, convolved, held, joined, residual, slab_bounds, stored, upsampled


class EncoderLevel(nn.Module):
    """Comes down from the level above (but for the first), then residual blocks."""

    def __init__(self, down: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.down = down
        self.blocks = nn.ModuleList(blocks)


class DecoderLevel(nn.Module):
    """Residual blocks, each fed one skip, then up to the level above (but for the last)."""

    def __init__(self, blocks: list[nn.Module], up: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.up = up


class Pass(nn.Module):
    """Stands where a level has nothing to resample."""

    def forward(self, x: Tensor, embedding: Tensor, size: list[int]) -> Tensor:
        return x


class UNet(nn.Module):
    """A denoising U-Net; every size of at least 17 a side works.

    dims 2: residual up/down blocks, scale-shift norm, zero padding (guided diffusion). dims 3: strided convolutions,
    trilinear upsampling, added embedding, first and last convolution padded by replication (Med-DDPM).
    The last convolution starts at zero.
    """

    def __init__(self, dims: int, channels_in: int, channels_out: int, size: UNetSize) -> None:
        super().__init__()
        self.dims, self.size = dims, size
        self.engine: Any = None  # what computes in place of PyTorch, without gradients (`engine`)
        self.slabs = 1  # more: compute a volume part by part, without gradients; the result is the same, in less memory
        self.channels = [size.width * multiplier for multiplier in size.multipliers]
        padding = "zeros" if dims == 2 else "replicate"
        self.embed = GammaEmbedding(size.width, 4 * size.width)
        folds = size.fold**dims
        self.fold = size.fold
        self.first = convolution(dims, channels_in * folds, self.channels[0], padding_mode=padding)
        skips = self._build_encoder()
        middle = self.channels[-1]
        self.middle_in = self._block(middle, middle)
        self.attention = Attention(middle, heads=size.heads, groups=size.groups) if size.heads else nn.Identity()
        self.middle_out = self._block(middle, middle)
        self._build_decoder(skips)
        self.norm = GroupNorm(min(size.groups, self.channels[0]), self.channels[0])
        self.last = zeroed(convolution(dims, self.channels[0], channels_out * folds, padding_mode=padding))
        # Convolutions of bfloat16 in this layout run two to five times as fast, on CPUs and GPUs alike.
        self.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)  # type: ignore[call-overload]

    def _block(self, channels_in: int, channels_out: int, resample: str = "none") -> nn.Module:
        return ResidualBlock(
            self.dims, channels_in, channels_out, 4 * self.size.width, groups=self.size.groups,
            dropout=self.size.dropout, scale_shift=self.dims == 2, resample=resample,
        )  # fmt: skip

    def _build_encoder(self) -> list[int]:
        levels, skips, channels = [], [self.channels[0]], self.channels[0]
        for index, wanted in enumerate(self.channels):
            down: nn.Module = Pass()
            if index > 0:
                down = self._block(channels, channels, "down") if self.dims == 2 else StridedDown(self.dims, channels)
                skips.append(channels)
            blocks = [self._block(channels if j == 0 else wanted, wanted) for j in range(self.size.blocks)]
            levels.append(EncoderLevel(down, blocks))
            skips += [wanted] * self.size.blocks
            channels = wanted
        self.encoder = nn.ModuleList(levels)
        return skips

    def _build_decoder(self, skips: list[int]) -> None:
        levels, channels = [], self.channels[-1]
        for index in reversed(range(len(self.channels))):
            wanted, blocks = self.channels[index], []
            for _ in range(self.size.blocks + 1):
                blocks.append(self._block(channels + skips.pop(), wanted))
                channels = wanted
            up: nn.Module = Pass()
            if index > 0:
                up = self._block(channels, channels, "up") if self.dims == 2 else LinearUp(self.dims, channels)
            levels.append(DecoderLevel(blocks, up))
        self.decoder = nn.ModuleList(levels)

    def forward(self, x: Tensor, gamma: Tensor, injected: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Denoise.

        x: (B, C, ...); gamma: (B,); injected: nothing, or one map per level in that level's size (the first is folded
        already), added after the first residual block (before the first on the deepest level, where 2D features arrive at
        their own width).
        Returns (B, C_out, ...) and the decoder's last map of every level, finest first; no maps in slabs.
        """
        if self.slabs > 1 and not torch.is_grad_enabled():
            return self._in_slabs(x, gamma, injected), []
        if self.engine is not None and not torch.is_grad_enabled():
            return self._by_engine(x, gamma, injected)
        embedding = self.embed(gamma)
        size: list[int] = x.shape[2:]  # type: ignore[assignment]
        if self.fold > 1:
            x = folded(x, self.fold)
        if self.dims == 2:  # no attribute for the layout: TorchScript takes only literal ones
            x = x.contiguous(memory_format=torch.channels_last)
        else:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        h = self.first(x)
        skips, deepest = [h], len(self.channels) - 1
        for index, level in enumerate(self.encoder):
            if index > 0:
                h = level.down(h, embedding, h.shape[2:])  # type: ignore[operator]
                skips.append(h)
            for j, block in enumerate(level.blocks):  # type: ignore[arg-type]
                if len(injected) > 0 and j == 0 and index == deepest:
                    h = h + injected[index]
                h = block(h, embedding, h.shape[2:])
                if len(injected) > 0 and j == 0 and index < deepest:
                    h = h + injected[index]
                skips.append(h)
        h = self.middle_in(h, embedding, h.shape[2:])
        h = self.middle_out(self.attention(h), embedding, h.shape[2:])
        maps: list[Tensor] = []
        for index, level in enumerate(self.decoder):
            for block in level.blocks:  # type: ignore[union-attr]
                h = torch.cat([h, skips.pop()], dim=1)  # under its name, so that the parts are free while the block runs
                h = block(h, embedding, h.shape[2:])
            maps.insert(0, h)
            if index < deepest:
                h = level.up(h, embedding, skips[-1].shape[2:])  # type: ignore[operator]
        h = self.last(F.silu(self.norm(h)))
        return (unfolded(h, self.fold, size) if self.fold > 1 else h), maps

    @torch.jit.unused
    def _by_engine(self, x: Tensor, gamma: Tensor, injected: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.engine(x, gamma, injected)

    @torch.jit.unused
    def _in_slabs(self, x: Tensor, gamma: Tensor, injected: list[Tensor]) -> Tensor:
        """As `forward` in 3D, in `slabs`; takes the maps out of `injected`, so that each is free when it has been used."""
        embedding, size = self.embed(gamma), list(x.shape[2:])
        x = folded(x, self.fold) if self.fold > 1 else x
        skips, sizes = self._encoded(x, embedding, injected)
        h = self.middle_in(skips[-1](0, sizes[-1][0]), embedding, sizes[-1])
        h = self.middle_out(self.attention(h), embedding, sizes[-1])
        h = self._decoded(h, embedding, skips, sizes)
        return unfolded(h, self.fold, size) if self.fold > 1 else h

    def _encoded(self, x: Tensor, embedding: Tensor, injected: list[Tensor]) -> tuple[list[Planes], list[list[int]]]:
        """The skips and every level's size. The first skip is a cheap convolution: computed wherever it is read, never held."""
        h, sizes, skips = x, [list(x.shape[2:])], [convolved(held(x), self.first, x.shape[2])]
        for index, level in enumerate(self.encoder):
            if index > 0:
                h = level.down(h, embedding, sizes[-1])  # type: ignore[operator]
                skips.append(held(h))
                sizes.append(list(h.shape[2:]))
            extra, bounds = [injected.pop(0)] if injected else [], slab_bounds(sizes[-1][0], self.slabs)
            for block in level.blocks:  # type: ignore[union-attr]
                read = skips[-1]
                if extra and index == len(self.channels) - 1:
                    read = added(read, held(extra.pop()))
                h = residual(block, read, embedding, bounds)
                if extra:
                    h += extra.pop()
                skips.append(held(h))
        return skips, sizes

    def _decoded(self, h: Tensor, embedding: Tensor, skips: list[Planes], sizes: list[list[int]]) -> Tensor:
        """The last convolution's channels; empties the skips and sizes."""
        read, bounds = held(h), [(0, 0)]
        for level in self.decoder:
            bounds = slab_bounds(sizes.pop()[0], self.slabs)
            for block in level.blocks:  # type: ignore[union-attr]
                h = residual(block, joined(read, skips.pop()), embedding, bounds)
                read = held(h)
            if sizes:
                read = upsampled(h, level.up, sizes[-1])  # type: ignore[arg-type]
        return stored(convolved(activated(read, self.norm, bounds), self.last, bounds[-1][1]), bounds)
