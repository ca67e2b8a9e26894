# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from scripts.data.patches import SlicePatch
from scripts.measurement.channels import coordinates
from scripts.networks import FusionNet, PlaneDenoiser, ScoreFusion
from scripts.networks.blocks import ResidualBlock
from scripts.networks.presets import SIZES, Size, UNetSize
from scripts.networks.score_fusion import Alignment, Member

AXES = {"sagittal": 2, "coronal": 3, "axial": 4}  # of (B, C, R, A, S): a sagittal slice has one left-right place
FLOAT32 = {"rtol": 1e-3, "atol": 1e-4}  # sums in another order, made larger by norms over small maps; a fault is 1e-1


@pytest.fixture(params=[1, 2], ids=["", "folded"])
def deep(monkeypatch, request):
    """A narrow preset as deep as the published one: sides are halved three times; with and without folding."""
    shape = UNetSize(8, (1, 1, 2, 2), 1, 4, 0, 0.0, fold=request.param)
    monkeypatch.setitem(SIZES, "deep", Size(shape, shape))
    return "deep"


def draw_input(rng, *, batch=1, conditions=1, sides=None):
    """Network input x, x_t and gamma for a volume of any size between 17 and 21."""
    sides = rng.integers(17, 22, 3).tolist() if sides is None else sides
    x = torch.randn(batch, conditions + 4, *sides)
    return x, torch.randn(batch, 1, *sides), torch.rand(batch)


def slice_by_slice(member, plane, x, x_t, gamma):
    """The estimate of a 2D member, one slice at a time."""
    parts = [member.denoiser(x.select(AXES[plane], i), x_t.select(AXES[plane], i), gamma) for i in range(x.shape[AXES[plane]])]
    return torch.stack(parts, dim=AXES[plane])


class FixedDraw:
    """Stands for a random generator that draws this number."""

    def __init__(self, number):
        self.number = number

    def integers(self, bound):
        return min(self.number, bound - 1)


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (lambda: PlaneDenoiser(1, "published"), 62.6),
        (lambda: FusionNet(1, 2, "published"), 55.5),
        (lambda: FusionNet(1, 2, "small"), 11.7),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(build, millions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build().parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03)  # as close as the publication lets one know


@pytest.mark.parametrize(
    "planes", [["coronal", "sagittal"], ["axial", "coronal", "sagittal"], ["axial", "axial", "coronal", "sagittal"]]
)
def test_untrained_fusion_equals_the_average(planes, rng, awaken):
    network = ScoreFusion(planes, size="tiny").eval()
    for member in network.members:
        awaken(member.denoiser)
    x, x_t, gamma = draw_input(rng, batch=2)
    with torch.no_grad():
        alone = [slice_by_slice(member, plane, x, x_t, gamma) for member, plane in zip(network.members, planes, strict=True)]
        fused = network(x, x_t, gamma)
    assert fused.std() > 0.01  # or the comparison would be empty
    torch.testing.assert_close(fused, sum(alone) / len(alone), **FLOAT32)


def test_published_network_takes_any_size_from_17_to_260(rng):
    with torch.device("meta"):  # shapes only, nothing is computed
        network = ScoreFusion(conditions=2, size="published", slab=3)
    for sides in ([260, 17, 18], rng.integers(17, 261, 3).tolist()):
        print(sides)
        x, x_t, gamma = (part.to("meta") for part in draw_input(rng, conditions=2, sides=sides))
        network.slice_batch = 128
        assert network(x, x_t, gamma).shape == x_t.shape


def test_batch_items_do_not_see_each_other(rng, deep, awaken):
    network = awaken(ScoreFusion(size=deep, slab=3)).eval()
    inputs = draw_input(rng, batch=3)
    with torch.no_grad():
        together = network(*inputs)
        alone = torch.cat([network(*(part[i : i + 1] for part in inputs)) for i in range(3)])
    torch.testing.assert_close(together, alone, **FLOAT32)


@pytest.mark.parametrize("slices", [1, 7, 1000])
def test_number_of_slices_at_once_does_not_change_the_result(slices, rng, deep, awaken):
    network = awaken(ScoreFusion(size=deep)).eval()
    inputs = draw_input(rng, batch=2)
    with torch.no_grad():
        usual = network(*inputs)
        network.slice_batch = slices
        torch.testing.assert_close(network(*inputs), usual, **FLOAT32)


@pytest.mark.parametrize("plane", AXES)
def test_a_plane_sees_only_its_own_slice(plane, rng, awaken):
    network = awaken(ScoreFusion([plane], size="tiny", fusion=False)).eval()
    x, x_t, gamma = draw_input(rng)
    place = int(rng.integers(x.shape[AXES[plane]]))
    changed = x.clone()
    changed.select(AXES[plane], place).add_(1.0)
    with torch.no_grad():
        difference = (network(changed, x_t, gamma) - network(x, x_t, gamma)).abs().movedim(AXES[plane], 0).flatten(1)
    assert difference.amax(dim=1).nonzero().flatten().tolist() == [place]


@pytest.mark.parametrize(("plane", "slab"), itertools.product(AXES, (1, 5)))
def test_training_slabs_are_those_of_inference(plane, slab, rng):
    x, label, _ = draw_input(rng, conditions=2)
    x[0, 2:5] = coordinates(x.shape[2:])
    prepared = torch.cat([x[0, :2], x[0, 5:]])  # as PrepareTrainingd leaves it: conditions and mask
    member = Member(plane, 2, "tiny", slab=slab, features=False)
    at_inference = member.slices(torch.cat([x, label], dim=1))[0]
    patch = SlicePatch(plane, None, slab)
    in_training = [patch(prepared, label[0], FixedDraw(index)) for index in range(len(at_inference))]
    assert torch.equal(torch.stack([sample["image"] for sample in in_training]), at_inference[:, :-1])
    assert torch.equal(torch.stack([sample["label"] for sample in in_training]), at_inference[:, -1:])


@pytest.mark.parametrize("plane", AXES)
def test_slab_edges_repeat_the_last_slice(plane, rng):
    x, x_t, _ = draw_input(rng)
    slices = Member(plane, 1, "tiny", slab=5, features=True).slices(torch.cat([x, x_t], dim=1))[0]
    count = x.shape[AXES[plane]]
    condition = np.moveaxis(x[0, 0].numpy(), AXES[plane] - 2, 0)
    padded = np.pad(condition, ((2, 2 + len(slices) - count), (0, 0), (0, 0)), mode="edge")
    assert len(slices) == count + count % 2  # fill-up to the two slices that share a coarse voxel
    for offset in range(5):
        np.testing.assert_array_equal(slices[:, offset], padded[offset : offset + len(slices)])


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_alignment_is_a_strided_3d_convolution(slices, rng, awaken):
    alignment = awaken(Alignment(3, 5, slices))
    reference = nn.Conv3d(3, 5, (slices, 1, 1), stride=(slices, 1, 1))
    with torch.no_grad():
        reference.weight.copy_(alignment.conv.weight.reshape(5, slices, 3).movedim(1, 2)[..., None, None])
        reference.bias.copy_(alignment.conv.bias)
        features = torch.randn(8, 3, 6, 7)
        expected = reference(features.movedim(0, 1)[None])[0].movedim(1, 0)
        torch.testing.assert_close(alignment(features), expected, **FLOAT32)


def test_alignment_says_the_same_in_any_number_of_threads(rng, awaken):
    """Convolutions of this size do not: what they say in one thread differs in the last digits."""
    align, features, said = awaken(Alignment(96, 48, 4)), torch.randn(16, 96, 39, 46), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            said.append(align(features))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(said[1], said[0]) and torch.equal(said[2], said[0])


def test_features_count_from_the_moment_alignments_are_not_zero(rng, awaken):
    network = ScoreFusion(size="tiny").eval()
    without = ScoreFusion(size="tiny", features=False).eval()
    for member in network.members:
        awaken(member.denoiser)
    awaken(network.fusion)
    without.load_state_dict({key: value for key, value in network.state_dict().items() if "alignments" not in key})
    inputs = draw_input(rng)
    with torch.no_grad():
        silent = network(*inputs)
        torch.testing.assert_close(silent, without(*inputs), **FLOAT32)
        assert (awaken(network)(*inputs) - silent).abs().max() > 1e-3


def test_published_features_reach_the_published_channels():
    with torch.device("meta"):
        member = Member("axial", 1, "published", slab=1, features=True)
    shapes = [(a.conv.in_channels // a.slices, a.conv.out_channels, a.slices) for a in member.alignments]
    assert shapes == [(64, 64, 1), (128, 128, 2), (256, 192, 4), (512, 192, 8)]


def test_torchscript_equals_eager(rng, awaken):
    network = awaken(ScoreFusion(size="tiny", slab=3)).eval()
    inputs = draw_input(rng)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(*inputs), network(*inputs), **FLOAT32)


def test_one_tensor_alone_is_the_answer_to_silence_at_pure_noise(rng, awaken):
    network = awaken(ScoreFusion(size="tiny")).eval()
    x, x_t, gamma = draw_input(rng)
    with torch.no_grad():
        assert torch.equal(network(x), network(x, torch.zeros_like(x_t), torch.zeros_like(gamma)))


def test_planes_stay_frozen_while_the_fusion_trains(rng, awaken):
    network = awaken(ScoreFusion(size="tiny")).train()
    network(*draw_input(rng)).square().mean().backward()
    frozen = {f"members.{i}.denoiser.{name}" for i in range(2) for name, _ in network.members[i].denoiser.named_parameters()}
    assert {name for name, parameter in network.named_parameters() if parameter.grad is None} == frozen
    assert not any(module.training for member in network.members for module in member.denoiser.modules())
    assert network.fusion.training


def test_recomputed_activations_give_the_same_gradients(rng, awaken):
    network = awaken(ScoreFusion(size="tiny")).train()
    inputs = draw_input(rng)

    def gradients(checkpointing):
        for module in network.fusion.modules():
            if isinstance(module, ResidualBlock):
                module.checkpointing = checkpointing
        network.zero_grad()
        network(*inputs).square().mean().backward()
        return [parameter.grad for parameter in network.fusion.parameters()]

    for kept, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(kept, recomputed, **FLOAT32)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"planes": ["oblique"]}, "'oblique'.*sagittal, coronal, axial"),
        ({"size": "huge"}, "'huge'.*published, small, compact, compact_small, cine, tiny"),
        ({"slab": 4}, "odd.*4"),
    ],
)
def test_an_unknown_choice_is_answered_by_the_choices(options, named):
    with pytest.raises(ValueError, match=named):
        ScoreFusion(**{"size": "tiny", **options})
