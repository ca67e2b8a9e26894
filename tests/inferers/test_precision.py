# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from scripts.inferers import MixedPrecisionInferer, precision


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


class Rounds(nn.Module):
    """Answers so differently in half precision as a faulty kernel would."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.calls = fault, 0
        self.conv = nn.Conv3d(5, 1, 1)

    def forward(self, x, x_t, timesteps):
        self.calls += 1
        answer = self.conv(x)
        return answer * (1 + self.fault) if answer.dtype == torch.bfloat16 else answer


@pytest.mark.parametrize(("fault", "half"), [(0.0, True), (0.2, False)])
def test_bfloat16_is_taken_only_where_it_agrees_with_float32_and_asked_once(fault, half, seed, monkeypatch, caplog):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    chosen, network, inputs = precision.Precision("auto"), Rounds(fault), torch.zeros(1, 5, 17, 17, 17)
    assert [chosen.is_half(network, inputs) for _ in range(3)] == [half] * 3
    assert network.calls == 2
    assert ("using float32" in caplog.text) is not half


def test_a_wish_for_one_precision_is_not_questioned(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    for name in ("float32", "bfloat16"):
        network = Rounds(0.5)
        assert precision.Precision(name).is_half(network, torch.zeros(1, 1, 17, 17, 17)) is (name == "bfloat16")
        assert network.calls == 0
