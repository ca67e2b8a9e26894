# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from scripts.diffusion import Diffusion, NoiseSchedule
from scripts.networks import FusionNet
from scripts.networks.blocks import GammaEmbedding


def draw_fusion(members, residual_scale=1.0):
    """A fusion with made-up raw channels and estimates, far from the average."""
    shape = (2, members, 3, 4, 5)
    return FusionNet(1, members, "tiny", residual_scale=residual_scale), torch.randn(shape), torch.randn(shape)


@pytest.mark.parametrize("members", [1, 2, 3, 6])
def test_weights_sum_to_one_wherever_training_led_them(members, seed):
    network, _, raw = draw_fusion(members)
    total = network.weights(10 * raw).double().sum(dim=1)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)  # weights reach 50, where float32 ends at 4e-6


@pytest.mark.parametrize(("members", "residual_scale"), [(1, 1.0), (2, 1.0), (4, 0.1)])
def test_fusion_follows_equation_6(members, residual_scale, seed):
    network, estimates, raw = draw_fusion(members, residual_scale)
    e, r = estimates.double().numpy(), raw.double().numpy()
    weights = [1 / members + r[:, i] for i in range(members - 1)]
    weights.append(1 - sum(weights))
    expected = sum(weights[i] * e[:, i] for i in range(members)) + residual_scale * r[:, -1]
    np.testing.assert_allclose(network.fuse(estimates, raw)[:, 0], expected, atol=1e-5)  # float32 of numbers up to 20


@pytest.mark.parametrize(
    ("prediction", "residual_factor"),
    [("epsilon", lambda g: -math.sqrt((1 - g) / g)), ("x_0", lambda g: 1.0), ("v", lambda g: -math.sqrt(1 - g))],
)
def test_fusing_estimates_is_fusing_what_they_say_of_x_0(prediction, residual_factor, rng):
    network, estimates, raw = draw_fusion(3)
    diffusion = Diffusion(NoiseSchedule("linear"), prediction)
    x_t, gamma = torch.randn(2, 1, 3, 4, 5), float(rng.uniform(0.2, 0.9))
    level = torch.full((2,), gamma)
    fused_first = diffusion.x_0(network.fuse(estimates, raw), x_t, level)
    scaled = torch.cat([raw[:, :2], residual_factor(gamma) * raw[:, 2:]], dim=1)
    fused_last = network.fuse(diffusion.x_0(estimates, x_t, level), scaled)
    torch.testing.assert_close(fused_first, fused_last, rtol=1e-4, atol=1e-4)  # float32 of numbers up to 50


def test_embedding_sees_the_time_of_a_cosine_schedule(seed):
    embedding = GammaEmbedding(8, 12).double()
    time = torch.rand(5, dtype=torch.float64) * 0.9 + 0.05
    phase = 1000.0 * time[:, None] * 10000.0 ** (-torch.arange(4) / 4.0)[None]
    expected = embedding.layers(torch.cat([phase.cos(), phase.sin()], dim=1))
    # gamma is float32: 6e-8 of it moves phases of 1000 by 3e-4 at most, near the ends of time
    torch.testing.assert_close(embedding((0.5 * math.pi * time).cos() ** 2), expected, rtol=0, atol=2e-3)
