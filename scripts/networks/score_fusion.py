# SPDX-License-Identifier: Apache-2.0
"""N plane denoisers and their 3D fusion as one module."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..measurement.planes import SPACE_TIME, axis_of
from .blocks import cropped, zeroed
from .fusion_net import FusionNet
from .plane_denoiser import PlaneDenoiser
from .presets import Size, size_named
from .space_time import SpaceTimeMember, SpaceTimeUNet
from .unet import UNet

Said = tuple[Tensor, list[Tensor]]  # an estimate (H, W, D), and the denoiser's decoder maps (S, C, h, w), finest first


def filled(count: int, group: int) -> int:
    """The least multiple of `group` that is not below `count`."""
    return (count + group - 1) // group * group


class Alignment(nn.Module):
    """Brings 2D feature maps onto the 3D grid of one level: a convolution whose kernel and stride are 2^level slices.

    Written as a 1x1 convolution over groups of neighbouring slices, so that it runs inside the loop over slices and a
    full stack of features is never held; computed as a product of matrices, which PyTorch adds up alike in any number of
    threads, unlike convolutions on CPUs. It starts at zero.
    """

    def __init__(self, channels_in: int, channels_out: int, slices: int) -> None:
        super().__init__()
        self.slices = slices
        self.conv = nn.Conv2d(channels_in * slices, channels_out, 1)
        zeroed(self.conv)

    def forward(self, features: Tensor) -> Tensor:
        """(S, C, H, W) -> (S / slices, C_out, H, W)."""
        slices, channels, height, width = features.shape
        joined = features.reshape(slices // self.slices, channels * self.slices, height * width)
        weight, bias = self.conv.weight.flatten(1), self.conv.bias
        assert bias is not None  # for TorchScript
        aligned = torch.baddbmm(bias[:, None], weight.expand(joined.shape[0], -1, -1), joined)
        return aligned.unflatten(2, [height, width])


class Member(nn.Module):
    """One plane denoiser at work on a whole volume (Eq. 4 of Zhu et al. 2025)."""

    def __init__(self, plane: str, conditions: int, size: str, *, slab: int, features: bool) -> None:
        super().__init__()
        self.plane, self.axis = plane, axis_of(plane) + 2
        # In the weights, so that those of another plane are refused: their shapes are all alike.
        self.register_buffer("plane_axis", torch.tensor(axis_of(plane)))
        self.conditions, self.slab = conditions, slab
        self.denoiser = PlaneDenoiser(conditions, size, slab=slab)
        shape = size_named(size)
        self.fold = shape.plane.fold
        # Slices that share a coarse voxel.
        self.group = self.fold * 2 ** (len(shape.plane.multipliers) - 1) if features else 1
        self.alignments = nn.ModuleList(_alignments(shape) if features else [])

    def slices(self, x: Tensor) -> Tensor:
        """Cut the network input along the plane: (B, C, H, W, D) -> (B, S, C', h, w), S a multiple of `group`.

        Edges repeat the last slice, both for the slab's neighbours and for the fill-up to a multiple.
        """
        stack = x.movedim(self.axis, 1)
        count = stack.shape[1]
        total = filled(count, self.group)
        reach = self.slab // 2
        index = torch.arange(-reach, total + reach, device=x.device).clamp(0, count - 1)
        centre = index[reach : reach + total]
        groups = [stack[:, index[offset : offset + total], : self.conditions] for offset in range(self.slab)]
        groups.append(stack[:, centre, self.conditions :])
        return torch.cat(groups, dim=2)

    def forward(self, x: Tensor, x_t: Tensor, gamma: Tensor, slice_batch: int) -> tuple[Tensor, list[Tensor]]:
        """The estimate (B, 1, H, W, D) and one aligned feature map a level (none when features are off)."""
        return self.denoise(x, x_t, gamma, slice_batch)

    def denoise(self, x: Tensor, x_t: Tensor, gamma: Tensor, slice_batch: int) -> tuple[Tensor, list[Tensor]]:
        """As `forward`: under a name that TorchScript finds when a subclass prepares what the member sees."""
        batch, count = x.shape[0], x.shape[self.axis]
        stack = self.slices(torch.cat([x, x_t], dim=1))
        total = stack.shape[1]
        flat = stack.flatten(0, 1)
        levels = gamma.repeat_interleave(total)
        step = max(slice_batch // self.group, 1) * self.group
        estimates: list[Tensor] = []
        features: list[list[Tensor]] = [[] for _ in self.alignments]
        for start in range(0, flat.shape[0], step):
            part = flat[start : start + step]
            estimate, maps = self.denoiser.denoise(part[:, :-1], part[:, -1:], levels[start : start + step])
            estimates.append(estimate)
            for level, alignment in enumerate(self.alignments):
                features[level].append(alignment(maps[level]))
        aligned = self._grids(features, batch, x.shape[2:])  # type: ignore[arg-type]
        return self._stacked(estimates, batch).narrow(self.axis, 0, count), aligned

    def recalled(self, maps: Sequence[Tensor], sides: list[int]) -> list[Tensor]:
        """The aligned features (1, C, H, W, D) of a volume of these sides, from the denoiser's own maps (S, C, h, w)."""
        parts = [[alignment(level)] for alignment, level in zip(self.alignments, maps, strict=True)]
        return self._grids(parts, 1, sides)

    def _grids(self, features: list[list[Tensor]], batch: int, sides: list[int]) -> list[Tensor]:
        """Each level's parts as a map on the grid of that level; empties the lists."""
        aligned: list[Tensor] = []
        size = [(side + self.fold - 1) // self.fold for side in sides]
        for maps in features:
            aligned.append(cropped(self._stacked(maps, batch), size))
            maps.clear()  # or the parts of all levels would wait for the last
            size = [(side + 1) // 2 for side in size]
        return aligned

    def _stacked(self, parts: list[Tensor], batch: int) -> Tensor:
        """Slices back into a volume: list of (s, C, h, w) -> (B, C, H, W, D)."""
        return torch.cat(parts).unflatten(0, [batch, -1]).movedim(1, self.axis)


def _alignments(shape: Size) -> list[nn.Module]:
    plane, fusion = shape.plane, shape.fusion
    if (len(plane.multipliers), plane.fold) != (len(fusion.multipliers), fusion.fold):
        raise BadInput("features need planes and fusion of equal depth and fold")
    wanted = [fusion.width * multiplier for multiplier in fusion.multipliers]
    wanted[-1] = wanted[-2]  # the deepest level takes its features before its first block has widened it
    return [
        Alignment(plane.width * multiplier, channels, plane.fold * 2**level)
        for level, (multiplier, channels) in enumerate(zip(plane.multipliers, wanted, strict=True))
    ]


def _member(name: str, conditions: int, size: str, *, slab: int, features: bool) -> nn.Module:
    """By the name of its plane, or of what sees a loop whole."""
    if name == SPACE_TIME:
        return SpaceTimeMember(conditions, size)
    return Member(name, conditions, size, slab=slab, features=features)


class ScoreFusion(nn.Module):
    """Plane denoisers on perpendicular planes, fused by a 3D network (Zhu et al. 2025, Algorithm 1 and 2).

    planes: "axial", "coronal", "sagittal" of RAS volumes, "x-y", "x-t", "y-t" and "space-time" of loops, one member each;
    fusion=False averages the members;
    features=True injects the planes' decoder maps into the 3D encoder. With a fusion the planes are frozen (Algorithm 1).

    >>> network = ScoreFusion(["coronal", "sagittal"], size="tiny", features=True)
    >>> network(torch.zeros(1, 5, 20, 20, 20)).shape
    torch.Size([1, 1, 20, 20, 20])
    """

    __constants__ = ["fused"]  # TorchScript drops the branch that is not taken: an Identity cannot fuse

    def __init__(
        self, planes: Sequence[str] = ("coronal", "sagittal"), conditions: int = 1, size: str = "compact", *,
        slab: int = 1, fusion: bool = True, features: bool = True, residual_scale: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.slice_batch = 32  # slices denoised at once; memory grows with it, speed hardly beyond this
        self.size = size
        self.members = nn.ModuleList(
            _member(plane, conditions, size, slab=slab, features=fusion and features) for plane in planes
        )
        self.fused = fusion
        self.fusion = FusionNet(conditions, len(planes), size, residual_scale=residual_scale) if fusion else nn.Identity()
        if fusion:
            for member in self.members:
                member.denoiser.requires_grad_(False)

    @torch.jit.unused
    def economize(self, slice_batch: int, slabs: int) -> None:
        """Denoise so many slices at once, and compute 3D networks in so many slabs: memory for time."""
        self.slice_batch = slice_batch
        for module in (*self.fusion.modules(), *self.members.modules()):
            if isinstance(module, SpaceTimeUNet) or (isinstance(module, UNet) and module.dims == 3):
                module.slabs = slabs

    @torch.jit.unused
    def alone(self, index: int) -> Callable[..., Tensor]:
        """What one member says, as a function of the same arguments as `forward`."""

        def estimate(x: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
            return self.members[index](x, x_t, timesteps, self.slice_batch)[0].float()

        return estimate

    def train(self, mode: bool = True) -> "ScoreFusion":
        """Frozen planes stay in evaluation mode: their dropout would be noise to the fusion."""
        super().train(mode)
        if self.fused:
            for member in self.members:
                member.get_submodule("denoiser").eval()
        return self

    def forward(self, x: Tensor, x_t: Tensor | None = None, timesteps: Tensor | None = None) -> Tensor:
        """The fused estimate (epsilon, x_0 or v) for a noisy volume.

        x: (B, conditions + 4, H, W, D), conditions in [-1, 1], then coordinates and mask; x_t: (B, 1, H, W, D), zeros
        when not given; timesteps: the noise level gamma (B,), zeros (pure noise) when not given: `network(x)` is the
        answer in one step. Returns (B, 1, H, W, D) in float32.
        """
        if x_t is None:
            x_t = torch.zeros_like(x[:, :1])
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        estimates, aligned = self.estimates(x, x_t, timesteps)
        if not self.fused:
            return estimates.mean(dim=1, keepdim=True)
        return self.fusion(x, x_t, timesteps, estimates, aligned)

    def estimates(self, x: Tensor, x_t: Tensor, gamma: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Every member's estimate (B, N, H, W, D) in float32, and their aligned features summed level by level."""
        estimates: list[Tensor] = []
        summed: list[Tensor] = []
        for member in self.members:
            estimate, aligned = member(x, x_t, gamma, self.slice_batch)
            estimates.append(estimate.float())
            _accumulate(summed, aligned)
        return torch.cat(estimates, dim=1), summed

    @torch.jit.unused
    def recalled(self, said: Sequence[Said]) -> tuple[Tensor, list[Tensor]]:
        """As `estimates` of one volume, from what every member said of it: its estimate (H, W, D) and own maps."""
        summed: list[Tensor] = []
        for member, (estimate, maps) in zip(self.members, said, strict=True):
            _accumulate(summed, member.recalled(maps, list(estimate.shape)))  # type: ignore[operator]
        return torch.stack([estimate for estimate, _ in said])[None], summed


def _accumulate(summed: list[Tensor], maps: list[Tensor]) -> None:
    """Add the maps of another member, level by level."""
    for level in range(len(maps)):
        if level < len(summed):
            summed[level] = summed[level] + maps[level]
        else:
            summed.append(maps[level])
