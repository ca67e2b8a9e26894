# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from scripts.diffusion import Diffusion, sample_ddim
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer
from scripts.inferers.circle import Circle
from scripts.measurement import BlockAverage
from scripts.networks import ScoreFusion

MEMBERS = ["x-y", "x-t", "y-t", "space-time"]
BLOCKS = [(4, 4, 1), (1, 1, 2)]


def loop(frames, rng, side=20):
    """A bright disc that beats once in a period, and noise."""
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = ((x - side / 2) ** 2 + (y - side / 2) ** 2).sqrt()
    radius = side / 4 + side / 8 * torch.cos(torch.arange(frames) * 2 * torch.pi / frames)
    truth = 100 * torch.sigmoid(radius - distance[..., None])
    return (truth + torch.from_numpy(rng.uniform(0, 5, truth.shape)))[None, None].float()


def restored(measured, degradation, network, steps=1):
    inferer = FusedScoreInferer(
        Diffusion(sigma_data=0.1), sample_ddim, steps=steps, degradation=degradation, precision="float32"
    )
    return inferer(measured, network, case="loop")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_loop_that_begins_elsewhere_gives_the_same_turned_by_whole_frames(block, steps, rng, awaken):
    degradation = BlockAverage(block, positions="slices", periodic=True)
    network = awaken(ScoreFusion(MEMBERS, size="tiny")).eval()
    measured = degradation(loop(12, rng))
    turn = block[-1] * int(rng.integers(1, 12 // block[-1]))
    result = restored(measured, degradation, network, steps)
    turned = restored(measured.roll(turn, -1), degradation, network, steps)
    assert (result - measured).abs().max() > 1  # the network says something
    torch.testing.assert_close(turned, result.roll(turn, -1), rtol=0, atol=1e-4)  # rounding of intensities around 100


def test_without_the_circle_it_is_not_the_same(rng, awaken):
    degradation = BlockAverage((4, 4, 1), positions="slices")
    network = awaken(ScoreFusion(MEMBERS, size="tiny")).eval()
    measured = degradation(loop(20, rng))
    turned = restored(measured.roll(5, -1), degradation, network)
    assert (turned - restored(measured, degradation, network).roll(5, -1)).abs().max() > 0.01


@pytest.mark.parametrize("block", BLOCKS)
def test_a_short_loop_keeps_its_measurement(block, rng, awaken):
    """Six frames are fewer than networks take; the circle goes on."""
    degradation = BlockAverage(block, positions="slices", periodic=True)
    measured = degradation(loop(6, rng))
    result = restored(measured, degradation, awaken(ScoreFusion(MEMBERS, size="tiny")).eval())
    assert result.shape == measured.shape
    torch.testing.assert_close(degradation(result), measured, rtol=0, atol=1e-4)


def test_every_loop_of_a_batch_is_opened_where_it_moves_least(rng):
    """Twelve frames that change by one, but for the sixth, which is like the fifth; a second loop begins elsewhere."""
    bright = torch.arange(12.0) - torch.tensor([0.0] * 5 + [0.9] * 7)
    texture = torch.from_numpy(rng.uniform(size=(1, 8, 8, 1)).astype("float32"))
    loops = torch.stack([texture + bright, texture + bright.roll(3)])
    circle = Circle(loops, BlockAverage((2, 2, 1), periodic=True), 17)
    opened = circle.opened(loops)
    assert opened.shape[-1] == 20  # 17 at least, as many on both sides
    assert torch.equal(opened[0], opened[1])
    torch.testing.assert_close(opened[0, ..., 4], loops[0, ..., 5])
    assert torch.equal(opened[..., :8], opened[..., 12:])
    assert torch.equal(circle.closed(opened), loops)


@pytest.mark.parametrize("alike", [[(3, 2), (6, 5)], [(3, 2), (7, 6)], [(1, 0), (4, 3), (7, 6)]])
def test_a_loop_that_stands_still_several_times_is_opened_at_one_of_them(alike, rng):
    loops = loop(8, rng)
    for after, before in alike:
        loops[..., after] = loops[..., before]
    average = BlockAverage((2, 2, 1), periodic=True)
    opened = Circle(loops, average, 17).opened(loops)
    for turn in range(1, 8):
        turned = loops.roll(turn, -1)
        assert torch.equal(Circle(turned, average, 17).opened(turned), opened)


def test_frames_that_do_not_fill_the_circle_are_refused(rng):
    with pytest.raises((BadInput, ValueError), match="not a multiple"):
        restored(loop(11, rng), BlockAverage((1, 1, 2), periodic=True), torch.nn.Identity())


@pytest.mark.parametrize(("frames", "block"), [(20, (4, 4, 1)), (12, (1, 1, 2)), (5, (2, 2, 1)), (6, (1, 1, 3))])
def test_who_counts_what_networks_see_counts_the_opened_loop(frames, block, rng):
    degradation = BlockAverage(block, periodic=True)
    sides = [20, 20, frames]
    opened = Circle(loop(frames, rng), degradation, 17).opened(loop(frames, rng))
    assert FusedScoreInferer(Diffusion(), degradation=degradation).seen(sides) == list(opened.shape[2:])
    assert FusedScoreInferer(Diffusion(), degradation=BlockAverage(block)).seen(sides) == sides
