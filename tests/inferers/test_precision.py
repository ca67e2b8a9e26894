# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from scripts.inferers import MixedPrecisionInferer


def test_trainer_sees_float32_whatever_the_network_runs_in(seed):
    network, x = nn.Conv3d(2, 3, 3), torch.randn(1, 2, 5, 5, 5)
    exact = MixedPrecisionInferer("float32")(x, network)
    half = MixedPrecisionInferer("bfloat16")(x, network)
    assert torch.equal(exact, network(x))
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.02 * exact.abs().max()  # bfloat16: 8 bits


def test_an_unknown_precision_is_answered_by_the_known_ones():
    with pytest.raises(ValueError, match=r"'float16'.*auto, float32, bfloat16"):
        MixedPrecisionInferer("float16")(torch.zeros(1), nn.Identity())
