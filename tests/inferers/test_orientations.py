# SPDX-License-Identifier: Apache-2.0
"""An answer of several orientations belongs to the volume, and not to how it lies."""

import pytest
import torch
from torch import nn

from scripts.diffusion import Diffusion, NoiseSchedule, sample_ddim, sample_one_step
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer
from scripts.inferers.orientations import WAYS, mean_of, turned, turned_back
from scripts.measurement import BlockAverage
from scripts.measurement.channels import measured
from scripts.measurement.slice_profile import SliceProfile
from scripts.measurement.slices import Slices
from scripts.running.workflow import config_files, load_config, task_config

BLOCK = (4, 4, 1)


def inferer(orientations, *, block=BLOCK, steps=1, sampler=sample_one_step, **options):
    process = Diffusion(NoiseSchedule("cosine"), "v", residual=True, sigma_data=0.2)
    options = {"degradation": BlockAverage(block), "precision": "float32", **options}
    return FusedScoreInferer(process, sampler, steps=steps, orientations=orientations, **options)


class Network(nn.Module):
    """What it says depends on where a voxel lies."""

    def forward(self, x, x_t, timesteps):
        return torch.sin(3 * x[:, :1] + 2 * x[:, 1:2] - 4 * x[:, 2:3] + timesteps.view(-1, 1, 1, 1, 1))


def test_each_of_eight_ways_is_another_and_can_be_undone(seed):
    volume = torch.randn(2, 3, 5, 5, 4)
    assert len({turned(volume, way).numpy().tobytes() for way in WAYS}) == 8
    for way in WAYS:
        assert torch.equal(turned_back(turned(volume, way), way), volume)


@pytest.mark.parametrize("way", WAYS)
def test_a_volume_laid_otherwise_gives_the_same_answer_laid_otherwise(way, draw_head):
    inputs = BlockAverage(BLOCK)(draw_head(20, 24, 18))
    for orientations, same in ((1, way == 0), (2, way in WAYS[:2]), (4, way in WAYS[:4]), (8, True)):
        ask = inferer(orientations)
        answers = ask(turned(inputs, way).contiguous(), Network()), turned(ask(inputs, Network()), way)
        assert torch.allclose(*answers, rtol=0, atol=1e-6 * float(inputs.max())) == same  # sums in another order


def test_the_answer_keeps_measurement_and_background(draw_head):
    measured = BlockAverage(BLOCK)(draw_head(20, 24, 18))
    result = inferer(8)(measured, Network())
    torch.testing.assert_close(BlockAverage(BLOCK)(result), measured, rtol=0, atol=1e-5 * float(measured.max()))
    assert torch.equal(result[measured == 0], measured[measured == 0])


def test_each_orientation_counts_as_an_evaluation():
    assert (inferer(4).nfe, inferer(1).nfe) == (4, 1)


@pytest.mark.parametrize("task", ["translation", "translation_head", "both"])
def test_what_ships_answers_left_and_right_alike(task, draw_head, seed):
    """Their coordinates are those of the place, so that the networks alone paint a ramp into every patient."""
    config = load_config(config_files("inference", [task_config(task)]), {"precision": "float32", "backend": "torch"})
    ask, network = (config.get_parsed_content(name) for name in ("inferer", "network"))
    head = torch.cat([draw_head(28, 24, 20) for _ in config["conditions"]], dim=1)
    inputs = head if ask.measured_by(head) is None else measured(head, ask.measured_by(head))
    answer, mirrored = ask(inputs, network), ask(inputs.flip(2), network).flip(2)
    assert (answer - inputs[:, :1]).abs().max() > 0.01 * inputs.max()  # the network did say something
    torch.testing.assert_close(mirrored, answer, rtol=0, atol=1e-5 * float(inputs.max()))


def test_several_steps_or_samples_are_drawn_in_one_orientation(draw_head):
    inputs = draw_head(20, 24, 18)
    for orientations in (1, 8):
        drawn = inferer(orientations, steps=3, sampler=sample_ddim)
        assert drawn.nfe == 3
        results = drawn(inputs, Network(), samples=2)
        assert torch.equal(results, inferer(1, steps=3, sampler=sample_ddim)(inputs, Network(), samples=2))


@pytest.mark.parametrize(("asked", "said"), [
    ({"orientations": 9}, "1 to 8 ways"), ({"orientations": 5, "block": (4, 1, 1)}, "first two axes differ"),
])  # fmt: skip
def test_what_cannot_be_turned_is_refused(asked, said, draw_head):
    with pytest.raises(BadInput, match=said):
        inferer(**asked)(draw_head(20, 24, 18), Network())


@pytest.mark.parametrize(("axes", "orientations"), [
    ([Slices.covering(8, 2.5)._replace(voxels=21), None, None], 2),  # the last slice does not end where the volume does
    ([Slices.covering(8, 3.0), Slices.covering(8, 3.0, 2.0), None], 8),  # gaps along one axis alone
    ([Slices.covering(8, 3.0), None, None], 8),
    ([Slices.covering(8, 3.0), Slices.covering(7, 3.0), None], 8),  # as many voxels as they have, each
])  # fmt: skip
def test_slices_that_lie_otherwise_in_another_orientation_are_refused(axes, orientations):
    scan = SliceProfile(axes)
    volume = torch.rand(1, 1, *(24 if axis is None else axis.voxels for axis in axes))
    with pytest.raises(BadInput, match=f"orientations {orientations}: "):
        mean_of(lambda inputs: inputs, volume, orientations, scan)


def test_slices_that_lie_alike_may_be_turned():
    scan, volume = SliceProfile([None, None, Slices.covering(8, 2.5)]), torch.rand(1, 1, 20, 24, 20)
    assert torch.allclose(mean_of(lambda inputs: inputs, volume, 8, scan), volume, rtol=0, atol=1e-6)
