# SPDX-License-Identifier: Apache-2.0
import logging
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scripts.errors import BadInput
from scripts.inferers import ladder
from scripts.inferers.ladder import LOST_IN_SLABS, RUNGS, climb_down, free_gb, out_of_memory
from scripts.networks import ScoreFusion
from scripts.networks.footprint import predicted_gb
from scripts.networks.presets import SIZES, Size

OUT = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
SHAPE = (1, 1, 40, 40, 40)
LOOPS = ["x-y", "x-t", "y-t", "space-time"]


class Evaluation:
    """Fails for want of memory so many times, and remembers how the network was set each time."""

    def __init__(self, network, failures=0, message=OUT):
        self.network, self.failures, self.message, self.seen = network, failures, message, []

    def __call__(self, device):
        self.seen.append((self.network.slice_batch, self.network.fusion.unet.slabs))
        if len(self.seen) <= self.failures:
            raise RuntimeError(self.message)
        return torch.ones(1)


class HeldMemory(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it, and the most that were alive at once; needs no more than meta tensors."""

    def __init__(self):
        super().__init__()
        self.known, self.held, self.peak = set(), 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for storage in (part.untyped_storage() for part in tree_leaves(made) if isinstance(part, torch.Tensor)):
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.held += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
                self.peak = max(self.peak, self.held)
        return made

    def _freed(self, storage, size):
        self.known.remove(storage)
        self.held -= size


@pytest.fixture
def network():
    return ScoreFusion(size="tiny").eval()


@pytest.fixture(params=["published", "compact"])
def narrow(monkeypatch, request):
    """A preset with the levels and blocks of another, but few channels."""
    shapes = [shape._replace(width=8, groups=4, heads=0) for shape in SIZES[request.param]]
    monkeypatch.setitem(SIZES, "narrow", Size(*shapes))
    return "narrow"


@pytest.mark.parametrize("planes", [["coronal", "sagittal"], LOOPS])
@pytest.mark.parametrize("rung", RUNGS)
@torch.no_grad()
def test_every_rung_gives_the_same_result(rung, planes, narrow, rng, awaken):
    network = awaken(ScoreFusion(planes, size=narrow)).eval()
    sides = rng.integers(17, 26, 3).tolist()
    inputs = torch.randn(2, 5, *sides), torch.randn(2, 1, *sides), torch.rand(2)
    network.economize(32, 1)
    full = network(*inputs)
    network.economize(rung.slice_batch, rung.slabs)
    torch.testing.assert_close(network(*inputs), full, rtol=1e-3, atol=1e-3 * float(full.abs().max()))


def test_slabs_are_for_evaluation_and_leave_gradients_alone(network, awaken):
    inputs = torch.randn(1, 5, 17, 18, 19)
    awaken(network).economize(1, 32)
    network(inputs).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.fusion.parameters())


def test_each_want_of_memory_steps_one_rung_down_and_says_so(network, caplog):
    evaluation = Evaluation(network, failures=2)
    with caplog.at_level(logging.WARNING):
        climb_down(evaluation, network, torch.zeros(SHAPE), half=False)
    assert evaluation.seen == [rung[:2] for rung in RUNGS[:3]]
    assert caplog.text.count("out of memory") == 2


def test_holes_between_large_blocks_are_given_back_where_memory_is_short(network, monkeypatch):
    kept = []
    monkeypatch.setattr(ladder, "keep_freed_memory", lambda large: kept.append(large))
    climb_down(Evaluation(network, failures=2), network, torch.zeros(SHAPE), half=False)
    assert kept == [rung.slabs == 1 for rung in RUNGS[:3]]


def test_want_of_memory_on_the_lowest_rung_is_one_clear_line(network):
    with pytest.raises(BadInput, match=r"40x40x40.*lowest rung.*crop it"):
        climb_down(Evaluation(network, failures=9), network, torch.zeros(SHAPE), half=False)


def test_other_errors_are_nobody_elses_business(network):
    evaluation = Evaluation(network, failures=9, message="mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        climb_down(evaluation, network, torch.zeros(SHAPE), half=False)
    assert len(evaluation.seen) == 1


def test_prediction_alone_chooses_the_rung(network, monkeypatch, caplog):
    needs = [predicted_gb(network, SHAPE, *rung[:2], half=False) for rung in RUNGS]
    assert needs == sorted(needs, reverse=True)
    between = (needs[1] + needs[2]) / 2
    with caplog.at_level(logging.INFO):
        evaluation = Evaluation(network)
        climb_down(evaluation, network, torch.zeros(SHAPE), half=False, limit_gb=between)
        monkeypatch.setattr(ladder, "free_gb", lambda device: 0.0)
        climb_down(evaluation, network, torch.zeros(SHAPE), half=False)
    assert evaluation.seen == [RUNGS[2][:2], RUNGS[-1][:2]]
    assert "too much" in caplog.text


def test_a_network_that_knows_no_rungs_is_evaluated_as_it_is():
    asked = []
    climb_down(lambda device: asked.append(device) or torch.ones(1), torch.nn.Identity(), torch.zeros(SHAPE), half=False)
    assert asked == [torch.device("cpu")]


@pytest.mark.parametrize("rung", RUNGS)
@torch.no_grad()
def test_predicted_memory_is_what_is_held(rung):
    with torch.device("meta"), HeldMemory() as memory:
        network = ScoreFusion(size="published").eval()
        weights = memory.held
        network.economize(rung.slice_batch, rung.slabs)
        network(torch.randn(1, 5, 48, 40, 56))
    predicted = predicted_gb(network, (1, 1, 48, 40, 56), *rung[:2], half=False)
    # 15 %: the inferer's own volumes are predicted, but not held here; coarser levels are held, but not predicted.
    assert predicted == pytest.approx((memory.peak - weights) / 1e9, rel=0.15)


@pytest.mark.parametrize("rung", RUNGS)
@torch.no_grad()
def test_a_loop_is_said_to_need_what_is_held_and_no_more_than_half_as_much_again(rung):
    with torch.device("meta"), HeldMemory() as memory:
        network = ScoreFusion(LOOPS, size="cine").eval()
        weights = memory.held
        network.economize(rung.slice_batch, rung.slabs)
        network(torch.randn(1, 5, 160, 144, 28))
    predicted = predicted_gb(network, (1, 1, 160, 144, 28), *rung[:2], half=False)
    assert 1 <= predicted * 1e9 / (memory.peak - weights) <= 1.5  # the inferer's own volumes are not held here


def test_a_loop_of_1024x1024_pixels_fits_into_8_gb_on_the_lowest_rung():
    with torch.device("meta"):
        network = ScoreFusion(LOOPS, size="cine")
    assert LOST_IN_SLABS * predicted_gb(network, (1, 1, 1024, 1024, 28), *RUNGS[-1][:2], half=True) <= 8


@pytest.mark.parametrize("size", SIZES)
def test_a_lower_rung_never_needs_more(size, rng):
    with torch.device("meta"):
        network = ScoreFusion(size=size)
    shape = (int(rng.integers(1, 3)), 1, *rng.integers(17, 261, 3).tolist())
    print(shape)
    needs = [predicted_gb(network, shape, *rung[:2], half=True) for rung in RUNGS]
    assert needs == sorted(needs, reverse=True)


def test_lowest_rung_of_the_published_size_needs_at_most_4_gb():
    with torch.device("meta"):
        network = ScoreFusion(size="published")
    assert predicted_gb(network, (1, 1, 192, 192, 152), *RUNGS[-1][:2], half=True) <= 4.0


@pytest.mark.parametrize("size", ["published", "compact"])
def test_predicted_memory_is_linear_in_voxels_and_halved_by_half_precision(size):
    with torch.device("meta"):
        network = ScoreFusion(size=size)
    shapes = [(1, 1, side, side, side) for side in (128, 256)]
    small, large = (predicted_gb(network, shape, *RUNGS[0][:2], half=False) for shape in shapes)
    assert large / small == pytest.approx(8, rel=0.1)
    assert 0.5 * large <= predicted_gb(network, shapes[1], *RUNGS[0][:2], half=True) < 0.8 * large


def test_free_memory_is_some_and_less_than_a_petabyte():
    free = free_gb(torch.device("cpu"))
    assert free is None or 0.01 < free < 1e6


def test_allocators_are_recognised_by_what_they_say():
    assert out_of_memory(RuntimeError(OUT))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes differ"))
