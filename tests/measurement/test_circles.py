# SPDX-License-Identifier: Apache-2.0
"""Volumes whose last axis closes in a circle."""

import pytest
import torch

from scripts.measurement import BlockAverage, Task
from scripts.measurement.channels import positions

SHAPE = (8, 12, 10)


@pytest.mark.parametrize("block", [(4, 4, 1), (1, 1, 2), (2, 2, 5)])
def test_interpolation_on_a_circle_is_that_of_the_circle_run_through_three_times(block, rng):
    measured = BlockAverage(block)(torch.from_numpy(rng.uniform(size=(1, 1, *SHAPE))))
    once = BlockAverage(block, periodic=True).interpolate(measured)
    thrice = BlockAverage(block).interpolate(measured.repeat(1, 1, 1, 1, 3))
    torch.testing.assert_close(once, thrice[..., 10:20], rtol=0, atol=1e-12)


def test_interpolation_in_time_is_another_without_the_circle(rng):
    measured = BlockAverage((1, 1, 2))(torch.from_numpy(rng.uniform(size=(1, 1, *SHAPE))))
    apart = (BlockAverage((1, 1, 2), periodic=True).interpolate(measured) - BlockAverage((1, 1, 2)).interpolate(measured)).abs()
    assert apart[..., 0].max() > 0.01
    assert apart[..., 4:6].max() < 1e-12


def test_a_crop_keeps_a_circle_whole():
    assert BlockAverage((4, 4, 1), periodic=True).cells(SHAPE) == (4, 4, 10)
    assert BlockAverage((4, 4, 1)).cells(SHAPE) == (4, 4, 1)


@pytest.mark.parametrize("told", ["coordinates", "slices"])
def test_positions_of_a_patch_are_those_of_its_place_in_the_volume(told, rng):
    degradation = BlockAverage((4, 4, 1), positions=told)
    start = [int(rng.integers(side - 4)) for side in SHAPE]
    box = (slice(None), *(slice(first, first + 4) for first in start))
    assert torch.equal(positions(SHAPE, degradation, start, [4, 4, 4]), positions(SHAPE, degradation)[box])


def test_positions_between_pixels_repeat_with_the_blocks_and_know_no_frame():
    told = positions(SHAPE, BlockAverage((4, 4, 1), positions="slices"))
    assert torch.equal(told, told[..., :1].expand_as(told))
    assert torch.equal(told[:, :4, :4], told[:, 4:, 4:8])
    assert len(told[0, :4, :4, 0].unique()) == 3  # distances to the middle of a block of 4x4


def test_a_task_of_loops_comes_back_from_its_record():
    task = Task(["cine"], "cine", BlockAverage((1, 1, 2), periodic=True), axes=["x", "y", "t"])
    back = Task.of({"task": task.content()})
    assert (back, back.axes, back.degradation.periodic) == (task, ("x", "y", "t"), True)
    plain = Task(["t1"], "t1", BlockAverage((1, 1, 2)))
    assert not {"axes", "periodic"} & plain.content().keys()  # as records were before
    assert plain != Task(["t1"], "t1", BlockAverage((1, 1, 2)), axes=["x", "y", "t"])
