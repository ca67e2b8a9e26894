# SPDX-License-Identifier: Apache-2.0
"""What is seen of a volume that is computed: lines, bars, and whether the time left is true."""

import logging
import threading
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from monai.inferers import SimpleInferer

from scripts.diffusion import Alternating, Diffusion, NoiseSchedule, sample_ddim
from scripts.inferers import FusedScoreInferer
from scripts.measurement import BlockAverage
from scripts.networks import ScoreFusion
from scripts.networks.score_fusion import Member
from scripts.running import progress
from scripts.running.parts import parts_of
from scripts.running.progress import Case, Progress

SHAPE = (1, 1, 36, 40, 44)


def inferer(sampler=sample_ddim, **options):
    return FusedScoreInferer(Diffusion(NoiseSchedule("cosine")), sampler, precision="float32", **{"steps": 1, **options})


@pytest.fixture
def network(seed):
    return ScoreFusion(["coronal", "sagittal"], size="tiny").eval()


@pytest.fixture
def lines(monkeypatch, caplog):
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    monkeypatch.setattr(progress, "CALIBRATION", 0.0)
    caplog.set_level(logging.INFO, progress.__name__)
    return caplog


def wait_for(text, lines):
    for _ in range(500):
        if any(text in message for message in lines.messages):
            return True
        threading.Event().wait(0.01)
    return False


def test_lines_say_how_far_a_volume_is_and_end_with_it(lines, network, draw_head):
    asked, head = inferer(), draw_head(*SHAPE[2:])
    with Progress(1) as shown:
        shown.next()
        with shown.case("anna", SHAPE, parts_of(network, asked, SHAPE)), torch.no_grad():
            network(torch.rand(1, 5, 20, 20, 20))  # as for the comparison of numbers, which is none of its parts
            asked(head, network)
            # 40 coronal slices, and 36 sagittal ones
            assert wait_for("100%, 76 of 76 slices, 1 of 1 fusion", lines)
    forecast = "case anna: 36x40x44 voxels in float32, 76 slices and 1 fusion: about"
    assert sum(message.startswith(forecast) for message in lines.messages) == 1
    assert all(message.startswith("case anna: ") for message in lines.messages)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    threading.Event().wait(0.05)
    said = len(lines.messages)
    threading.Event().wait(0.1)
    assert len(lines.messages) == said


def test_it_ends_when_a_case_fails(lines, network):
    before = threading.active_count()
    with pytest.raises(RuntimeError), Progress(2) as shown:
        shown.next()
        with shown.case("bert", SHAPE, parts_of(network, inferer(), SHAPE)):
            raise RuntimeError
    for _ in range(100):
        if threading.active_count() <= before:
            return
        threading.Event().wait(0.01)
    pytest.fail("the thread goes on")


@pytest.mark.parametrize(
    ("asked", "slices", "fusions"),
    [
        (inferer(steps=2, samples=2), 4 * 76, 4),
        (inferer(Alternating(sample_ddim, 2), steps=3), 2 * 40 + 36, 0),  # coronal, sagittal, coronal
    ],
    ids=["steps and samples", "one plane at a time"],
)
def test_every_evaluation_is_counted_beforehand(asked, slices, fusions, network, draw_head):
    parts = parts_of(network, asked, SHAPE)
    assert sum(part.calls * part.pieces for part in parts if part.name == "slice") == slices
    assert sum(part.calls for part in parts if part.name == "fusion") == fusions
    with Case("a", SHAPE, parts) as case:
        asked(draw_head(*SHAPE[2:]), network)
        assert case.share() == 1.0


def test_frames_beyond_the_ends_of_a_loop_are_counted_too(draw_head, seed):
    """A loop that closes is opened: networks see more frames than it has."""
    network = ScoreFusion(["x-y", "y-t"], size="tiny").eval()
    asked = inferer(degradation=BlockAverage((4, 4, 1), positions="slices", periodic=True))
    loop = draw_head(36, 40, 20)
    with Case("a", loop.shape, parts_of(network, asked, loop.shape)) as case:
        asked(loop, network)
        assert case.share() == 1.0


def test_of_an_inferer_that_nobody_knows_only_the_time_is_told(network):
    with Case("a", SHAPE, parts_of(network, SimpleInferer(), SHAPE)) as case:
        assert case.state() == "0 s"


class Clock:
    """Time that passes while networks compute: a second for so many multiplications."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))

    def drive(self, part, speed):
        """Let calls of a part take the time of their work."""
        for module in [part.module] if part.within is None else [part.within]:
            module.register_forward_hook(lambda _, inputs, output: self._pass(inputs, part, speed))

    def _pass(self, inputs, part, speed):
        self.now += (part.pieces if part.within is None else len(inputs[0])) * part.work / speed


@pytest.mark.parametrize("fusion_slower", [0.7, 1.0, 1.4])
def test_the_time_left_is_true_within_a_quarter_after_a_tenth(fusion_slower, network, monkeypatch, draw_head):
    clock, asked, told = Clock(monkeypatch), inferer(steps=2), []
    parts = parts_of(network, asked, SHAPE)
    total = sum(part.calls * part.pieces * part.work for part in parts)
    for part in parts:
        clock.drive(part, total / 60 / (fusion_slower if part.name == "fusion" else 1.0))
    with Case("a", SHAPE, parts) as case:
        hooks = [part.within or part.module for part in parts]
        for module in hooks:
            module.register_forward_hook(lambda *_: told.append((clock.now, case.left())))
        asked(draw_head(*SHAPE[2:]), network)
    whole = clock.now - 100.0
    late = [(now - 100.0, left) for now, left in told if now - 100.0 >= whole / 10]
    assert len(late) >= 8
    assert all(abs(now + left - whole) < 0.25 * whole for now, left in late)


def test_the_fusion_moves_while_it_is_computed(network, monkeypatch, draw_head):
    clock, asked, shares = Clock(monkeypatch), inferer(), []
    parts = parts_of(network, asked, SHAPE)
    for part in parts[:-1]:
        clock.drive(part, 1e7)

    def compute(*_):
        foreseen = parts[-1].work / 1e7  # s
        for _ in range(20):  # it takes twice as long
            clock.now += foreseen / 10
            shares.append(case.share())

    network.fusion.unet.register_forward_hook(compute)
    with Case("a", SHAPE, parts) as case:
        asked(draw_head(*SHAPE[2:]), network)
    assert all(first < second for first, second in pairwise(shares)) and shares[-1] < 1.0


class Elsewhere(torch.nn.Module):
    """Computes what a plane would, without its U-Net: no call of a module tells of slices."""

    def denoise(self, x, x_t, timesteps):
        return x_t, []


def test_planes_that_something_else_computes_are_counted_by_their_volumes(draw_head):
    network = ScoreFusion(["coronal", "sagittal"], size="tiny", fusion=False).eval()
    for member in network.members:
        assert isinstance(member, Member)
        member.denoiser = Elsewhere()
    asked = inferer()
    with Case("a", SHAPE, parts_of(network, asked, SHAPE)) as case:
        asked(draw_head(*SHAPE[2:]), network)
        assert case.state().startswith("76 of 76 slices, ")
