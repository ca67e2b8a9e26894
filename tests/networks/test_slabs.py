# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.blocks import LinearUp, ResidualBlock
from scripts.networks.slabs import (
    activated,
    convolved,
    group_affine,
    held,
    joined,
    repeated,
    residual,
    slab_bounds,
    stored,
    upsampled,
)

FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # sums in another order
SLABS = pytest.mark.parametrize("slabs", [2, 5, 100])


@SLABS
def test_slabs_cover_an_axis_once(slabs, rng):
    length = int(rng.integers(1, 40))
    places = [place for start, stop in slab_bounds(length, slabs) for place in range(start, stop)]
    assert places == list(range(length))


@SLABS
@pytest.mark.parametrize("channels_out", [8, 12])
@torch.no_grad()
def test_a_block_in_slabs_equals_the_whole_block_on_joined_maps(slabs, channels_out, rng, awaken):
    block = awaken(ResidualBlock(3, 12, channels_out, 16, groups=4)).eval()
    size = rng.integers(3, 20, 3).tolist()
    x, skip, embedding = 3 * torch.randn(2, 8, *size) + 1, torch.randn(2, 4, *size), torch.randn(2, 16)
    whole = block(torch.cat([x, skip], dim=1), embedding, size)
    parts = residual(block, joined(held(x), held(skip)), embedding, slab_bounds(size[0], slabs))
    torch.testing.assert_close(parts, whole, **FLOAT32)


@SLABS
@pytest.mark.parametrize("odd", [0, 1])
@torch.no_grad()
def test_a_map_brought_up_in_slabs_equals_the_whole_one(slabs, odd, rng):
    up, coarse = LinearUp(3, 4), rng.integers(1, 12, 3).tolist()
    x, size = torch.randn(2, 4, *coarse), [2 * side - odd for side in coarse]
    parts = stored(upsampled(x, up, size), slab_bounds(size[0], slabs))
    torch.testing.assert_close(parts, up(x, torch.empty(0), size), **FLOAT32)


@SLABS
@pytest.mark.parametrize("odd", [0, 1])
def test_a_map_with_every_voxel_twice_is_the_same_in_slabs(slabs, odd, rng):
    coarse = rng.integers(1, 12, 3).tolist()
    x, size = torch.randn(2, 4, *coarse), [2 * side - odd for side in coarse[:2]]
    whole = x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : size[0], : size[1]]
    assert torch.equal(stored(repeated(x, size), slab_bounds(size[0], slabs)), whole)


@SLABS
@pytest.mark.parametrize("width", [(3, 3, 1), (1, 1, 3)])
@torch.no_grad()
def test_a_convolution_of_some_axes_in_slabs_equals_the_whole_one(slabs, width, rng):
    conv = nn.Conv3d(4, 3, width, padding=tuple(side // 2 for side in width))
    x = torch.randn(2, 4, *rng.integers(1, 20, 3).tolist())
    parts = stored(convolved(held(x), conv, x.shape[2]), slab_bounds(x.shape[2], slabs))
    torch.testing.assert_close(parts, conv(x), **FLOAT32)


@torch.no_grad()
def test_what_is_normed_is_scaled_and_shifted_before_it_is_activated(seed):
    norm, x = nn.GroupNorm(2, 4), torch.randn(2, 4, 7, 5, 3)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    scale, shift = torch.randn(2, 2, 4, 1, 1, 1)
    parts = stored(activated(held(x), norm, bounds := slab_bounds(7, 3), (scale, shift)), bounds)
    torch.testing.assert_close(parts, F.silu(norm(x) * (1 + scale) + shift), **FLOAT32)


@SLABS
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@torch.no_grad()
def test_a_convolution_may_overwrite_what_it_reads(slabs, padding, rng):
    conv = nn.Conv3d(4, 4, 3, padding=1, padding_mode=padding)
    x = torch.randn(2, 4, *rng.integers(1, 20, 3).tolist())
    whole = conv(x)
    overwritten = stored(convolved(held(x), conv, x.shape[2]), slab_bounds(x.shape[2], slabs), out=x)
    assert overwritten is x
    torch.testing.assert_close(x, whole, **FLOAT32)


def test_statistics_summed_in_slabs_are_those_of_group_norm(seed):
    norm, x = nn.GroupNorm(3, 6), 0.1 * torch.randn(2, 6, 7, 5, 4) + 30  # a mean far from zero: squares must not cancel
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    scale, shift = group_affine(held(x), norm, slab_bounds(7, 3))
    exact = F.group_norm(x.double(), 3, norm.weight.double(), norm.bias.double(), norm.eps)
    torch.testing.assert_close((x.double() * scale + shift), exact, rtol=1e-3, atol=2e-3)
