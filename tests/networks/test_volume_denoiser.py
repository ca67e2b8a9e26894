# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from scripts.networks import FusionNet, VolumeDenoiser


def test_it_is_the_published_3d_network_without_estimates():
    with torch.device("meta"):
        alone, fusion = (
            sum(p.numel() for p in network.parameters())
            for network in (VolumeDenoiser(2, "published"), FusionNet(2, 2, "published"))
        )
    assert fusion - alone == 2 * 64 * 27 + 64 * 27 + 1  # two input channels, one output channel with its bias
    assert alone / 1e6 == pytest.approx(55.5, rel=0.03)  # as published


def test_it_answers_in_the_size_it_was_asked_and_to_one_tensor_alone(rng, awaken):
    network = awaken(VolumeDenoiser(2, "tiny")).eval()
    sides = rng.integers(17, 22, 3).tolist()
    x, x_t = torch.randn(2, 6, *sides), torch.randn(2, 1, *sides)
    with torch.no_grad():
        assert network(x, x_t, torch.rand(2)).shape == x_t.shape
        assert torch.equal(network(x), network(x, torch.zeros_like(x_t), torch.zeros(2)))


def test_every_input_channel_counts(seed, awaken):
    network = awaken(VolumeDenoiser(1, "tiny")).eval()
    x, x_t = torch.randn(1, 5, 17, 17, 17), torch.randn(1, 1, 17, 17, 17, requires_grad=True)
    x.requires_grad_(True)
    network(x, x_t, torch.rand(1)).square().sum().backward()
    assert x.grad.flatten(2).abs().amax(dim=2).min() > 0
    assert nn.functional.l1_loss(x_t.grad, torch.zeros_like(x_t)) > 0
