# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the 2D and 3D U-Nets; every one is TorchScript-able and takes any size of 17 and more."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CONVOLUTIONS: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}


def convolution(dims: int, channels_in: int, channels_out: int, **options: Any) -> nn.Module:
    """A 3-wide convolution that keeps the size, or, with `stride=2`, rounds half of it up."""
    return CONVOLUTIONS[dims](channels_in, channels_out, 3, padding=1, **options)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all parameters zero, so that what it adds starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def cropped(x: Tensor, size: list[int]) -> Tensor:
    """The first `size` voxels along each spatial axis of (B, C, ...)."""
    for axis in range(len(size)):
        x = x.narrow(axis + 2, 0, size[axis])
    return x


def folded(x: Tensor, fold: int) -> Tensor:
    """`fold` voxels a side become channels: (B, C, H, W[, D]) -> (B, C * fold^2 or fold^3, H / fold, ...).

    Sides that are no multiple of `fold` are first filled up by repeating their last voxels.
    """
    for axis in range(2, x.dim()):
        side = x.shape[axis]
        whole = (side + fold - 1) // fold * fold
        if whole > side:
            x = x.index_select(axis, torch.arange(whole, device=x.device).clamp(max=side - 1))
        x = x.unflatten(axis, [-1, fold]).movedim(axis + 1, 2).flatten(1, 2)
    return x


def unfolded(x: Tensor, fold: int, size: list[int]) -> Tensor:
    """Inverse of `folded`, cropped to `size`."""
    for axis in range(x.dim() - 1, 1, -1):
        x = x.unflatten(1, [-1, fold]).movedim(2, axis + 1).flatten(axis, axis + 1)
    return cropped(x, size)


class GammaEmbedding(nn.Module):
    """Embeds the noise level gamma = prod(1 - beta), so that networks work under any schedule.

    The sinusoids see the angle 2/pi * arccos(sqrt(gamma)) in [0, 1], which is the time of a cosine schedule: gamma itself
    is flat where most sampling steps lie. (B,) -> (B, channels_out).
    """

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__()
        self.waves = channels // 2
        self.layers = nn.Sequential(nn.Linear(channels, channels_out), nn.SiLU(), nn.Linear(channels_out, channels_out))

    def forward(self, gamma: Tensor) -> Tensor:
        time = gamma.float().clamp(0.0, 1.0).sqrt().acos() * (2.0 / math.pi)
        # Made here, because a buffer would follow the network to half precision, where 1000 has no decimals.
        exponents = torch.arange(self.waves, device=gamma.device) / self.waves
        phase = time[:, None] * 1000.0 * torch.exp(-math.log(10000.0) * exponents)[None, :]
        features = torch.cat([phase.cos(), phase.sin()], dim=1)
        return self.layers(features.to(self.layers[0].weight.dtype))  # type: ignore[arg-type]


class GroupNorm(nn.GroupNorm):
    """PyTorch's, otherwise in training in bfloat16.

    Its backward pass takes four times as long on a CPU in bfloat16 as in float32: it is computed so. On a GPU autocast would
    have it, and what follows it, in float32, and most of a step's time went into copies from one into the other and back.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and x.requires_grad and x.dtype == torch.bfloat16:  # type: ignore[attr-defined]
            return self._trained(x)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    @torch.jit.unused
    def _trained(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return _HalfGroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-untyped-call]
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class _HalfGroupNorm(torch.autograd.Function):
    """Group norm of bfloat16 with parameters in float32; keeps what PyTorch's keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        y, mean, scale = torch.native_group_norm(x, weight, bias, len(x), x.shape[1], x[0, 0].numel(), groups, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        weight, mean, scale = (tensor.float() for tensor in others)
        sizes = (len(x), x.shape[1], x[0, 0].numel(), ctx.groups)
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            gradient.float(), x.float(), mean, scale, weight, *sizes, [True, True, True]
        )
        return of_x.to(x.dtype), of_weight, of_bias, None, None


class ResidualBlock(nn.Module):
    """Norm, SiLU, [resample], convolution, embedding, norm, SiLU, dropout, zeroed convolution; added to the input.

    resample: "down" halves the size (rounding up) and "up" doubles it (cropped to `size`) inside the block, as in
    guided diffusion. scale_shift: the embedding scales and shifts the second norm; otherwise it is added before it.
    """

    def __init__(
        self, dims: int, channels_in: int, channels_out: int, embedding: int, *, groups: int, dropout: float = 0.0,
        scale_shift: bool = False, resample: str = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        self.dims, self.resample, self.scale_shift = dims, resample, scale_shift
        self.checkpointing = False  # True: recompute activations in the backward pass, for full volumes
        self.norm_in = GroupNorm(min(groups, channels_in), channels_in)
        self.conv_in = convolution(dims, channels_in, channels_out)
        self.embed = nn.Linear(embedding, channels_out * (2 if scale_shift else 1))
        self.norm_out = GroupNorm(min(groups, channels_out), channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(convolution(dims, channels_out, channels_out))
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else CONVOLUTIONS[dims](channels_in, channels_out, 1)

    def _resampled(self, x: Tensor, size: list[int]) -> Tensor:
        if self.resample == "down":
            if self.dims == 2:
                return F.avg_pool2d(x, 2, ceil_mode=True)
            return F.avg_pool3d(x, 2, ceil_mode=True)
        if self.resample == "up":
            return cropped(F.interpolate(x, scale_factor=2.0, mode="nearest"), size)
        return x

    def forward(self, x: Tensor, embedding: Tensor, size: list[int]) -> Tensor:
        if self.checkpointing and self.training:
            return self._checkpointed(x, embedding, size)
        return self._compute(x, embedding, size)

    @torch.jit.unused
    def _checkpointed(self, x: Tensor, embedding: Tensor, size: list[int]) -> Tensor:
        return checkpoint(self._compute, x, embedding, size, use_reentrant=False)

    def _compute(self, x: Tensor, embedding: Tensor, size: list[int]) -> Tensor:
        h = self.conv_in(self._resampled(F.silu(self.norm_in(x)), size))
        e = self.embed(F.silu(embedding))
        e = e[:, :, None, None] if self.dims == 2 else e[:, :, None, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm_out(h) * (1.0 + scale) + shift
        else:
            h = self.norm_out(h + e)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.skip(self._resampled(x, size)) + h


class StridedDown(nn.Module):
    """Strided convolution: half the size, rounded up."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = convolution(dims, channels, channels, stride=2)

    def forward(self, x: Tensor, embedding: Tensor, size: list[int]) -> Tensor:
        return self.conv(x)


class LinearUp(nn.Module):
    """Trilinear doubling, cropped to `size`, then a convolution."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = convolution(dims, channels, channels)

    def forward(self, x: Tensor, embedding: Tensor, size: list[int]) -> Tensor:
        fine = F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
        return self.conv(cropped(fine, size))


class Attention(nn.Module):
    """Self-attention over all pixels of a coarse map, added to its input; (B, C, H, W) -> same."""

    def __init__(self, channels: int, *, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(min(groups, channels), channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.project = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[0], x.shape[1]
        qkv = self.qkv(self.norm(x).flatten(2)).reshape(batch, self.heads, 3 * channels // self.heads, -1)
        query, key, value = qkv.transpose(2, 3).chunk(3, dim=3)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.project(mixed.transpose(2, 3).reshape(batch, channels, -1)).reshape(x.shape)
