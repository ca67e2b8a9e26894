# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from scripts.errors import BadInput
from scripts.measurement import BlockAverage
from scripts.measurement.channels import FAR, NEAR, positions
from scripts.measurement.slice_profile import SliceProfile
from scripts.measurement.slices import SHAPES, Slices


def drawn(rng, shape=None, *, overlap=1.0):
    """Slices of any ratio from 1.5 to 8, with gaps of up to 30 %."""
    spacing = float(rng.uniform(1.5, 8))
    shape = shape or str(rng.choice(SHAPES))
    return Slices.covering(int(rng.integers(3, 9)), spacing, spacing * float(rng.uniform(0.7, overlap)), shape)


def volume_on(rng, axes, dtype=torch.float64):
    sides = [5 if axis is None else axis.voxels for axis in axes]
    return torch.from_numpy(rng.standard_normal((1, 1, *sides))).to(dtype)


def axes_of(rng, count):
    axes = [drawn(rng) if index < count else None for index in range(3)]
    return [axes[index] for index in rng.permutation(3)]


@pytest.mark.parametrize("factors", [(4, 4, 4), (1, 1, 4), (2, 3, 8)])
def test_whole_boxes_are_the_block_average(factors, rng):
    count = rng.integers(2, 5, 3)
    axes = [Slices.covering(int(n), f) if f > 1 else None for n, f in zip(count, factors, strict=True)]
    sides = [int(n) * f for n, f in zip(count, factors, strict=True)]
    x, y = (torch.from_numpy(rng.standard_normal((2, 1, *sides))).float() for _ in range(2))
    block, slices = BlockAverage(factors), SliceProfile(axes)
    assert slices.factors == factors and all(axis is None or axis.rest() < 1e-12 for axis in slices.axes)
    close = {"rtol": 0, "atol": 2e-6}
    torch.testing.assert_close(slices.measure(x), block.measure(x), **close)
    torch.testing.assert_close(slices(x), block(x), **close)
    torch.testing.assert_close(slices.interpolate(block(x)), block.interpolate(block(x)), **close)
    torch.testing.assert_close(slices.project(x, slices(y)), block.project(x, block(y)), **close)
    torch.testing.assert_close(slices.plain(block(x)), block(x), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_slice_measures_its_profile(shape, rng):
    """Against the profile itself, added up over a thousand points a voxel."""
    axis = drawn(rng, shape, overlap=1.3)
    point = (np.arange(axis.voxels * 1000) + 0.5) / 1000
    away = point[None] - axis.centres[:, None]
    profile = np.abs(away) <= axis.thickness / 2 if shape == "box" else 0.5 ** ((2 * away / axis.thickness) ** 2)
    expected = profile.reshape(axis.number, axis.voxels, 1000).sum(axis=2)
    np.testing.assert_allclose(axis.matrix(), expected / expected.sum(axis=1, keepdims=True), atol=2e-3)


def test_the_pseudo_inverse_is_that_of_the_whole_operator(rng):
    axes = [Slices.covering(3, float(rng.uniform(1.5, 2.5)), 1.5) for _ in range(2)] + [None]
    operator = SliceProfile(axes)
    x = volume_on(rng, axes)[..., :3]  # (.., h, w, 3)
    dense = np.kron(np.kron(axes[0].matrix(), axes[1].matrix()), np.eye(3))
    y = rng.standard_normal(len(dense))
    coarse = torch.from_numpy(y).reshape(1, 1, 3, 3, 3)
    expected = x.flatten().numpy() + np.linalg.pinv(dense) @ (y - dense @ x.flatten().numpy())
    result = operator.project(x, operator.repeat(coarse))
    np.testing.assert_allclose(result.flatten().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_ratio_and_gap_keeps_the_measurement_to_1e_5_in_float32(count, rng):
    for _ in range(5):
        axes = axes_of(rng, count)
        operator = SliceProfile(axes)
        x, truth = (volume_on(rng, axes, torch.float32) for _ in range(2))
        measured = operator.repeat(operator.measure(truth))
        for result in (operator.project(x, measured), operator.interpolate(measured), measured):
            torch.testing.assert_close(operator.measure(result), operator.measure(truth), rtol=0, atol=1e-5)
        assert max(axis.rest() for axis in axes if axis is not None) < 1e-6
        torch.testing.assert_close(operator(operator(x)), operator(x), rtol=0, atol=1e-5)


def test_slices_that_overlap_too_much_are_kept_as_far_as_they_say_something(rng):
    axis = Slices.covering(12, 2.0, float(rng.uniform(7, 10)), "gaussian")
    operator = SliceProfile([None, None, axis])
    x = volume_on(rng, operator.axes)
    assert axis.rest() > 0.01
    result = operator.project(torch.zeros_like(x), operator(x))
    assert result.abs().max() < 20 * x.abs().max()  # and not the noise that an exact inverse would make of it


@pytest.mark.parametrize("overlap", [1.0, 1.3, 1.5, 2.0, 2.5, 3.0])
def test_overlapping_slices_are_not_sharpened_into_noise(overlap, rng):
    """Twice as thick as apart, an exact inverse makes noise four to seven times as loud."""
    spacing = float(rng.uniform(1.5, 4))
    axis = Slices.covering(int(rng.integers(20, 60)), spacing, overlap * spacing)
    louder = np.sqrt((axis.inverse() ** 2).sum() / axis.voxels)
    assert louder < 3.5
    assert axis.rest() < 1e-9 or overlap > 1.5


def test_interpolation_meets_the_slices_and_looks_the_same_from_both_ends(rng):
    axis = Slices.covering(int(rng.integers(5, 9)), float(rng.choice([3.0, 5.0, 7.0])))
    weights = axis.cubic()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(weights[::-1, ::-1], weights, atol=1e-12)
    np.testing.assert_allclose(weights[(axis.centres - 0.5).astype(int)], np.eye(axis.number), atol=1e-12)


def test_nothing_measured_lies_outside_the_foreground(rng):
    axes = axes_of(rng, 2)
    operator = SliceProfile(axes)
    x = volume_on(rng, axes).abs()
    x = x * (torch.rand_like(x) > 0.97)
    measured = operator(x)
    mask = operator.foreground(measured, 1e-9)
    seen = operator.measure(torch.where(mask, 1.0, 0.0).to(x))
    above = operator.measure(measured) > 1e-9
    torch.testing.assert_close(seen[above], torch.ones_like(seen[above]), rtol=0, atol=1e-9)


def test_parts_of_a_volume_have_the_slices_they_hold(rng):
    operator = SliceProfile([None, Slices.covering(6, 4), Slices.covering(4, 2.5)])
    part = operator.on([7, 16, 10])
    assert part.axes == (None, Slices.covering(4, 4), Slices.covering(4, 2.5))
    assert operator.on([9, 24, 10]) is operator
    x = torch.from_numpy(rng.standard_normal((1, 1, 3, 24, 10)))
    torch.testing.assert_close(part(x[..., 4:20, :]), operator(x)[..., 4:20, :], rtol=0, atol=1e-9)


def test_networks_see_distance_thickness_and_spacing(rng):
    axis = Slices.covering(3, 5.0, 4.0)
    channels = positions((4, 6, 15), SliceProfile([None, None, axis]))
    assert channels.shape == (3, 4, 6, 15)
    np.testing.assert_allclose(channels[0, 0, 0] * NEAR, [2, 1, 0, 1, 2] * 3, atol=1e-6)
    assert channels[1].unique().tolist() == [4 / FAR] and channels[2].unique().tolist() == [5 / FAR]
    block = BlockAverage((2, 1, 4), positions="slices")
    near = positions((4, 3, 8), block)[0] * NEAR
    np.testing.assert_allclose(near[0, 0, :4], np.hypot(0.5, [1.5, 0.5, 0.5, 1.5]), rtol=1e-6)


@pytest.mark.parametrize(
    "axis", [Slices(3, 2.0, 0.0, 1.0, 6), Slices(5, 2.0, 2.0, 1.0, 6), Slices(3, 2.0, 2.0, 1.0, 6, "sinc")]
)
def test_slices_that_do_not_lie_on_the_grid_are_refused(axis):
    with pytest.raises(BadInput, match="slice"):
        SliceProfile([None, None, axis])
