# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from scripts.networks.blocks import folded, unfolded


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
