# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from scripts.networks.blocks import GroupNorm, folded, unfolded


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


@pytest.mark.parametrize("shape", [(2, 12, 9, 7), (1, 12, 5, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_of_group_norm_are_those_of_float64(shape, dtype, seed):
    x, gradient = (torch.randn(shape).to(dtype) for _ in range(2))
    ours, exact = GroupNorm(4, 12), torch.nn.GroupNorm(4, 12).double()
    torch.nn.init.normal_(ours.weight)
    torch.nn.init.normal_(ours.bias)
    exact.load_state_dict(ours.state_dict())
    ends = []
    for norm, kind in ((ours, dtype), (exact, torch.float64)):
        start = x.detach().to(kind, copy=True).requires_grad_()
        end = norm(start)
        end.backward(gradient.to(kind))
        ends.append((end, start.grad, norm.weight.grad, norm.bias.grad))
    for one, other in zip(*ends, strict=True):
        # what is kept and what leaves is rounded to 8 bits; sums are not
        bound = 2**-7 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(one.double(), other, rtol=bound, atol=bound * float(other.detach().abs().max()))
