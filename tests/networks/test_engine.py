# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch

from scripts.networks import ModalityFusion, ScoreFusion, VolumeDenoiser, engine
from scripts.networks.quantization import observed, quantized

pytestmark = pytest.mark.skipif(not engine.has_openvino(), reason="OpenVINO is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def answer(network, x, gamma=0.3):
    with torch.no_grad():
        return network(x, x_t=x[:, :1].flip(2), timesteps=torch.full((len(x),), gamma))


@pytest.mark.parametrize("size", ["tiny", "compact_small"])
@pytest.mark.parametrize("features", [True, False])
def test_openvino_says_what_pytorch_says_at_any_size_of_volume(size, features, awaken, seed):
    network = awaken(ScoreFusion(["coronal"], size=size, features=features)).eval()
    volumes = [torch.randn(1, 5, *shape) for shape in ((20, 20, 20), (17, 22, 19))]
    wanted = [answer(network, x) for x in volumes]
    engine.compile_unets(network, {}, half=False)
    for x, exact in zip(volumes, wanted, strict=True):
        assert (answer(network, x) - exact).norm() / exact.norm() < 1.0e-5  # float32, summed in another order
    engine.release_unets(network)
    assert torch.equal(answer(network, volumes[0]), wanted[0])


def test_every_kind_of_network_can_be_computed(awaken, seed):
    networks = [
        (VolumeDenoiser(size="tiny"), torch.randn(1, 5, 18, 18, 20)),
        (ScoreFusion(["axial"], size="tiny", fusion=False, slab=3), torch.randn(1, 5, 18, 18, 20)),
        (ModalityFusion(["coronal"], [[0], [1]], "tiny"), torch.randn(2, 6, 18, 18, 20)),
    ]
    for network, x in networks:
        awaken(network).eval()
        wanted = answer(network, x)
        engine.compile_unets(network, {}, half=False)
        assert (answer(network, x) - wanted).norm() / wanted.norm() < 1.0e-5


def test_integers_are_those_of_the_simulation(awaken, seed):
    network = awaken(ScoreFusion(["axial"], size="tiny")).eval()
    x = torch.rand(1, 5, 20, 20, 20) * 2 - 1
    with observed(network) as ranges:
        exact = answer(network, x)
    simulated = answer(quantized(network, ranges), x)
    engine.compile_unets(network, ranges, half=False)
    given = answer(network, x)
    rounding = (simulated - exact).norm()
    assert rounding > 0
    assert (given - simulated).norm() < rounding  # a value that lies between two steps may fall to either


@pytest.mark.parametrize("half", [False, True])
def test_the_number_of_threads_does_not_change_what_openvino_says_in_integers(half, awaken, seed, monkeypatch):
    network = awaken(VolumeDenoiser(size="tiny")).eval()
    x, answers = torch.rand(1, 5, 40, 44, 40) * 2 - 1, []  # of its own GroupNormalization most such volumes show it
    with observed(network) as ranges:
        answer(network, x)
    for threads in (1, 2, 3):  # of OpenVINO alone
        monkeypatch.setattr(engine.torch, "get_num_threads", lambda threads=threads: threads)
        engine.compile_unets(network, ranges, half=half)
        answers.append(answer(network, x))
    for other in answers[1:]:
        assert torch.equal(other, answers[0])


def test_a_network_is_exported_once_and_again_when_its_weights_change(awaken, seed, tmp_path):
    network = awaken(ScoreFusion(["coronal"], size="tiny", fusion=False)).eval()
    x = torch.randn(1, 5, 18, 18, 18)

    def kept():
        engine.compile_unets(network, {}, half=False)
        answer(network, x)
        return sorted(path.parent.name for path in tmp_path.rglob("network.xml"))

    first = kept()
    assert len(first) == 1
    assert kept() == first
    with torch.no_grad():
        network.members[0].denoiser.unet.first.weight.mul_(2)
    assert len(kept()) == 2


def test_gradients_slabs_and_copies_are_pytorchs_own(awaken, seed):
    network = awaken(ScoreFusion(size="tiny")).eval()
    x = torch.randn(1, 5, 20, 20, 20)
    engine.compile_unets(network, {}, half=False)
    assert all(unet.engine is None for _, unet in engine.named_unets(copy.deepcopy(network)))
    network(x).sum().backward()
    assert network.fusion.unet.last.weight.grad.abs().sum() > 0
    wanted = answer(network, x)
    network.economize(4, 3)
    assert (answer(network, x) - wanted).norm() / wanted.norm() < 1.0e-5
