# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from scripts.diffusion import Diffusion, NoiseSchedule
from scripts.errors import BadInput
from scripts.networks import ModalityFusion, ScoreFusion
from scripts.networks.modality_fusion import ModalityMember

FLOAT32 = {"rtol": 1e-3, "atol": 1e-4}  # sums in another order, made larger by norms over small maps


def draw_input(rng, conditions=2):
    sides = rng.integers(17, 22, 3).tolist()
    return torch.randn(1, conditions + 4, *sides), torch.randn(1, 1, *sides), torch.rand(1)


class Perfect:
    """Stands for a member's network: it knows the image, and answers in terms of the residual to its own first condition."""

    def __init__(self, image, diffusion):
        self.image, self.diffusion = image, diffusion

    def denoise(self, x, x_t, gamma, slice_batch):
        x_0 = self.diffusion.encode(self.image, x[:, :1])
        level = gamma.view(-1, 1, 1, 1, 1)
        epsilon = (x_t - level.sqrt() * x_0) / (1 - level).sqrt()
        return self.diffusion.target(x_0, epsilon, gamma), []


@pytest.mark.parametrize("prediction", ["epsilon", "x_0", "v"])
@pytest.mark.parametrize("residual", [True, False])
def test_a_perfect_member_with_another_base_says_what_the_whole_wants_to_hear(prediction, residual, rng, monkeypatch):
    diffusion = Diffusion(NoiseSchedule("linear"), prediction, residual=residual, sigma_data=rng.uniform(0.05, 1))
    x, image, gamma = (part.double() for part in draw_input(rng))
    epsilon = torch.randn_like(image)
    x_0 = diffusion.encode(image, x[:, :1])  # of the whole: residual to condition 0
    scale = 0.5 / diffusion.sigma_data if residual else 0.0
    member = ModalityMember("coronal", [1], "tiny", given=2, slab=1, scale=scale, prediction=prediction)
    monkeypatch.setattr(member, "denoise", Perfect(image, diffusion).denoise)
    said = member(x, diffusion.noised(x_0, epsilon, gamma), gamma, 1)[0]
    torch.testing.assert_close(said, diffusion.target(x_0, epsilon, gamma), rtol=0, atol=1e-8)


def test_a_member_sees_its_own_conditions_alone(rng, awaken):
    network = awaken(ModalityFusion(["coronal"], [[0], [1]], "tiny", fusion=False)).eval()
    x, x_t, _ = draw_input(rng)
    gamma = torch.zeros(1)  # there the bases meet in the answer alone, and v gains d

    def said(x):
        with torch.no_grad():
            return network.estimates(x, torch.zeros_like(x_t), gamma)[0]

    changed = x.clone()
    changed[:, 1] += 1.0
    difference = (said(changed) - said(x)).abs().amax(dim=(0, 2, 3, 4))
    assert difference[0] == 0
    assert difference[1] > 1e-3


def test_members_of_one_condition_are_those_of_a_plain_ensemble(rng, awaken):
    plain = awaken(ScoreFusion(["coronal", "sagittal"], 1, "tiny", fusion=False)).eval()
    network = ModalityFusion(["coronal", "sagittal"], [[0]], "tiny", fusion=False).eval()
    network.load_state_dict(plain.state_dict())
    inputs = draw_input(rng, conditions=1)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), plain(*inputs), **FLOAT32)


def test_untrained_it_is_the_average_of_all_members_and_its_planes_are_frozen(rng, awaken):
    network = ModalityFusion(["coronal", "sagittal"], [[0], [1]], "tiny").eval()
    for member in network.members:
        awaken(member.denoiser)
    assert [(member.plane, member.seen) for member in network.members] == [
        ("coronal", [0]), ("sagittal", [0]), ("coronal", [1]), ("sagittal", [1]),
    ]  # fmt: skip
    inputs = draw_input(rng)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), network.estimates(*inputs)[0].mean(1, keepdim=True), **FLOAT32)
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"fusion"}
    assert network.fusion.residual_scale == 0.1


def test_torchscript_equals_eager(rng, awaken):
    network = awaken(ModalityFusion(["coronal"], [[0], [1]], "tiny", slab=3, sigma_data=0.1)).eval()
    inputs = draw_input(rng)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(*inputs), network(*inputs), **FLOAT32)


@pytest.mark.parametrize("subsets", [[[1]], [[0], []]])
def test_subsets_without_a_base_are_refused(subsets):
    with pytest.raises(BadInput, match="condition 0"):
        ModalityFusion(["coronal"], subsets, "tiny")
