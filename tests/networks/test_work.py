# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks.presets import SIZES
from scripts.networks.space_time import SpaceTimeUNet
from scripts.networks.unet import UNet
from scripts.networks.work import multiplications, space_time_multiplications


@pytest.mark.parametrize("name", [name for name in SIZES if name != "tiny"])  # whose attention weighs more than convolutions
@pytest.mark.parametrize("dims", [2, 3])
def test_multiplications_are_those_that_torch_counts(name, dims, rng):
    size = SIZES[name].plane if dims == 2 else SIZES[name].fusion
    shape = [int(side) for side in rng.integers(32, 80, dims)]
    with torch.device("meta"):
        network, x, gamma = UNet(dims, 6, 1, size), torch.zeros(1, 6, *shape), torch.zeros(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, gamma, [])
    assert multiplications(size, 6, shape) == pytest.approx(counter.get_total_flops() / 2, rel=0.1)  # odd sides round up


def test_multiplications_of_space_and_time_are_those_that_torch_counts(rng):
    shape, size = [int(side) for side in rng.integers(24, 60, 3)], SIZES["cine"].plane
    with torch.device("meta"):
        network, x, gamma = SpaceTimeUNet(6, 1, size), torch.zeros(1, 6, *shape), torch.zeros(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, gamma)
    assert space_time_multiplications(size, 6, shape) == pytest.approx(counter.get_total_flops() / 2, rel=0.02)  # embedding
