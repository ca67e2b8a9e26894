# SPDX-License-Identifier: Apache-2.0
import math
import re

import pytest
import torch
from surroundings import awakened
from torch import nn

from scripts.diffusion import Diffusion, NoiseSchedule
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer, backend, precision
from scripts.inferers.precision import has_bfloat16
from scripts.networks import ScoreFusion
from scripts.networks.engine import has_openvino, named_unets
from scripts.networks.quantization import attach_ranges, observed

pytestmark = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
DIFFUSION = Diffusion(NoiseSchedule(kind="cosine"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def exported():
    """Weights and ranges of a network that OpenVINO exports once for all tests, which takes longer than any of them."""
    network, head = awakened(ScoreFusion(["coronal"], size="tiny")).eval(), torch.zeros(1, 1, 24, 24, 24)
    head[..., 6:18, 6:18, 6:18] = torch.rand(12, 12, 12) / 2 + 0.7  # as `draw_head` draws it
    with torch.no_grad(), observed(network) as ranges:
        FusedScoreInferer(DIFFUSION, steps=1, backend="torch", precision="float32")(head, network)
    return network.state_dict(), dict(ranges)


@pytest.fixture
def network(exported):
    """A network with ranges for heads."""
    network = ScoreFusion(["coronal"], size="tiny").eval()
    network.load_state_dict(exported[0])
    attach_ranges(network, exported[1])
    return network


def infer(network, head, **options):
    inferer = FusedScoreInferer(DIFFUSION, steps=1, **options)
    return inferer(head, network), inferer.numbers


def without_bfloat16(monkeypatch):
    for module in (backend, precision):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: False)


def compiled(network):
    return [unet.engine is not None for _, unet in named_unets(network)]


@pytest.mark.parametrize(("name", "half"), [("auto", False), ("openvino", False), ("openvino", True)])
def test_integers_are_taken_where_ranges_came_with_the_weights(name, half, network, draw_head, monkeypatch):
    monkeypatch.setattr(backend, "TOLERANCE", 1.0)  # random weights are no trained ones
    if not half:
        without_bfloat16(monkeypatch)
    elif not has_bfloat16(torch.device("cpu")):
        pytest.skip("needs a CPU with bfloat16")
    head = draw_head(24, 24, 28)
    exact, numbers = infer(network, head, backend="torch", precision="float32")
    assert (numbers, compiled(network)) == ("float32", [False] * 2)
    given, numbers = infer(network, head, backend=name)
    assert (numbers, compiled(network)) == ("int8", [True] * 2)
    assert 0 < (given - exact).norm() < 0.5 * exact.norm()
    again, numbers = infer(network, head, backend="torch", precision="float32")  # one network, asked in turn
    assert numbers == "float32"
    assert torch.equal(again, exact)


def test_inferers_that_share_a_network_each_get_what_they_want(network, draw_head, monkeypatch):
    monkeypatch.setattr(backend, "TOLERANCE", 1.0)
    without_bfloat16(monkeypatch)
    head = draw_head(24, 24, 24)
    integers, floats = (FusedScoreInferer(DIFFUSION, steps=1, backend=name) for name in ("openvino", "torch"))
    first = integers(head, network)
    exact = floats(head, network)
    assert torch.equal(integers(head, network), first)
    assert integers.numbers == "int8"
    assert torch.equal(floats(head, network), exact)
    assert compiled(network) == [False] * 2


def test_where_nothing_can_be_kept_pytorch_computes_unless_openvino_was_asked_for(
    network, draw_head, tmp_path, monkeypatch, caplog
):
    without_bfloat16(monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    head = draw_head(24, 24, 24)
    _, numbers = infer(network, head)
    assert numbers == "float32"
    assert compiled(network) == [False] * 2
    assert "OpenVINO is not used: " in caplog.text and "set XDG_CACHE_HOME" in caplog.text
    with pytest.raises(BadInput, match="set XDG_CACHE_HOME to a folder that can be written"):
        infer(network, head, backend="openvino")


@pytest.mark.parametrize("options", [{"backend": "torch"}, {"precision": "float32"}])
def test_who_wants_something_else_gets_it(network, draw_head, options, monkeypatch):
    without_bfloat16(monkeypatch)
    _, numbers = infer(network, draw_head(24, 24, 24), **options)
    assert numbers != "int8"
    assert compiled(network) == [False] * 2


@pytest.mark.parametrize(("evaluations", "numbers"), [(1, "bfloat16"), (2, "int8")])
def test_with_bfloat16_integers_are_for_several_evaluations(evaluations, numbers, network, monkeypatch):
    for module in (backend, precision):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(backend, "TOLERANCE", 1.0)
    chosen, x = backend.Backend("auto", "auto"), torch.rand(1, 5, 20, 20, 20)

    def ask(half):
        with torch.no_grad(), precision.autocast(x.device, half):
            return (answer := network(x).float()), answer

    assert chosen.prepare(network, x.device, ask, evaluations).numbers == numbers


def test_without_ranges_pytorch_computes(awaken, draw_head, seed, monkeypatch):
    without_bfloat16(monkeypatch)
    network = awaken(ScoreFusion(["coronal"], size="tiny")).eval()
    _, numbers = infer(network, draw_head(24, 24, 24))
    assert numbers in ("float32", "bfloat16")
    assert compiled(network) == [False] * 2


def test_integers_that_answer_otherwise_than_float32_are_not_used(network, draw_head, caplog, monkeypatch):
    without_bfloat16(monkeypatch)
    attach_ranges(network, dict.fromkeys(network.ranges.ranges, 1.0e-3))  # nearly everything is cut off
    _, numbers = infer(network, draw_head(24, 24, 24))
    assert numbers == "float32"
    assert compiled(network) == [False] * 2
    assert "% in 8-bit integers, more than 2%: computed in float32" in caplog.text


class Rounds(nn.Module):
    """Answers so differently in half precision as a faulty kernel would; one that learned to say nothing else."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.asked = fault, []
        self.conv = nn.Conv3d(5, 1, 1)

    def forward(self, x, x_t, timesteps):
        answer = self.conv(x)
        self.asked.append(tuple(answer.shape[2:]))
        return answer * (1 + self.fault) if answer.dtype == torch.bfloat16 else answer


@pytest.mark.parametrize(("fault", "numbers"), [(0.0, "bfloat16"), (0.05, "float32"), (math.nan, "float32")])
def test_bfloat16_is_taken_only_where_it_agrees_with_float32_at_the_first_volume(
    fault, numbers, draw_head, monkeypatch, caplog
):
    monkeypatch.setattr(backend, "has_bfloat16", lambda device: True)
    network, inferer = Rounds(fault), FusedScoreInferer(DIFFUSION, steps=1)
    for side in (24, 28):
        inferer(draw_head(side, 24, 40), network)
        assert inferer.numbers == numbers
        assert len(inferer.doubts) == int(numbers == "float32")
    part = (20, 20, 20)
    assert network.asked == [part, part, (24, 24, 40), (28, 24, 40)]
    said = [message for message in caplog.messages if "differs from float32" in message]
    assert said == inferer.doubts
    if fault == 0.05:
        assert re.fullmatch(r".* by [45]\.\d% in bfloat16, more than 2%: computed in float32", *said)


def test_who_asks_for_bfloat16_gets_it_and_a_doubt(draw_head):
    inferer = FusedScoreInferer(DIFFUSION, steps=1, precision="bfloat16")
    inferer(draw_head(24, 24, 24), Rounds(0.5))
    assert inferer.numbers == "bfloat16"
    assert inferer.doubts[0].endswith("in bfloat16, more than 2%: computed in bfloat16, as asked for")
    inferer(draw_head(24, 24, 24), Rounds(0.0))
    assert inferer.doubts == []


class FaultyFusion(ScoreFusion):
    """A network that bfloat16 halves."""

    def forward(self, *inputs, **named):
        return super().forward(*inputs, **named) * (0.5 if torch.is_autocast_enabled("cpu") else 1.0)


def test_where_integers_and_bfloat16_are_wrong_float32_computes(network, draw_head, monkeypatch):
    monkeypatch.setattr(backend, "has_bfloat16", lambda device: True)
    network.__class__, head = FaultyFusion, draw_head(24, 24, 24)
    attach_ranges(network, dict.fromkeys(network.ranges.ranges, 1.0e-3))  # nearly everything is cut off
    exact = FusedScoreInferer(DIFFUSION, steps=2, backend="torch", precision="float32")(head, network)
    inferer = FusedScoreInferer(DIFFUSION, steps=2)
    assert torch.equal(inferer(head, network), exact)
    assert (inferer.numbers, compiled(network)) == ("float32", [False] * 2)
    (line,) = inferer.doubts
    assert re.search(r"by [\d.]+% in 8-bit integers and (49|50|51)\.\d% in bfloat16, more than 2%: computed in float32$", line)


def test_openvino_without_ranges_computes_in_floating_point(awaken, draw_head, seed):
    network, head = awaken(ScoreFusion(["coronal"], size="tiny")).eval(), draw_head(24, 24, 24)
    exact, _ = infer(network, head, backend="torch", precision="float32")
    given, numbers = infer(network, head, backend="openvino", precision="float32")
    assert (numbers, compiled(network)) == ("float32", [True] * 2)
    assert torch.allclose(given, exact, atol=1.0e-4)


def test_an_unknown_backend_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(BadInput, match="no backend 'onnx'; choose one of auto, torch, openvino"):
        FusedScoreInferer(DIFFUSION, backend="onnx")
    monkeypatch.setattr(backend, "has_openvino", lambda: False)
    with pytest.raises(BadInput, match="pip install openvino"):
        FusedScoreInferer(DIFFUSION, backend="openvino")
    FusedScoreInferer(DIFFUSION)  # auto does without
