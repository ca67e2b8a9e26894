# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.blocks import ResidualBlock, folded, group_affine, unfolded


def test_folding_in_the_plane_is_pixel_unshuffling(seed):
    x = torch.randn(2, 3, 9, 6)
    assert torch.equal(folded(x[:, :, 1:], 2), F.pixel_unshuffle(x[:, :, 1:], 2))


@pytest.mark.parametrize("fold", [2, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_unfolding_undoes_folding_at_any_size(dims, fold, rng):
    sides = rng.integers(5, 11, dims).tolist()
    x = torch.randn(2, 3, *sides)
    assert torch.equal(unfolded(folded(x, fold), fold, sides), x)


def test_a_side_that_does_not_fold_is_filled_by_its_last_voxel(seed):
    x = torch.randn(1, 1, 4, 5)
    assert torch.equal(folded(x, 2), F.pixel_unshuffle(F.pad(x, (0, 1, 0, 0), mode="replicate"), 2))


@pytest.mark.parametrize("slabs", [2, 5, 100])
@pytest.mark.parametrize("channels_out", [8, 12])
def test_a_block_in_slabs_equals_the_whole_block(slabs, channels_out, rng, awaken):
    block = awaken(ResidualBlock(3, 12, channels_out, 16, groups=4)).eval()
    size = rng.integers(3, 20, 3).tolist()
    x, embedding = 3 * torch.randn(2, 12, *size) + 1, torch.randn(2, 16)
    with torch.no_grad():
        whole = block(x, embedding, size)
        block.slabs = slabs
        torch.testing.assert_close(block(x, embedding, size), whole, rtol=1e-4, atol=1e-5)


def test_statistics_summed_in_slabs_are_those_of_group_norm(seed):
    norm, x = nn.GroupNorm(3, 6), 0.1 * torch.randn(2, 6, 7, 5, 4) + 30  # a mean far from zero: squares must not cancel
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    scale, shift = group_affine(x, norm, 3)
    exact = F.group_norm(x.double(), 3, norm.weight.double(), norm.bias.double(), norm.eps)
    torch.testing.assert_close((x.double() * scale + shift), exact, rtol=1e-3, atol=2e-3)
