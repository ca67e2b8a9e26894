# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from scripts.measurement import BlockAverage

FACTORS = [(4, 4, 4), (1, 1, 4), (2, 3, 1)]


def draw_volume(rng, factors, largest=4):
    """A volume in float64 of 2 to `largest` blocks along each axis."""
    sides = [int(rng.integers(2, largest + 1)) * factor for factor in factors]
    return torch.randn(2, 1, *sides, dtype=torch.float64)


def dense(shape, factors):
    """The measurement as a matrix (blocks, voxels), written down entry by entry."""
    block = [np.arange(side) // factor for side, factor in zip(shape, factors, strict=True)]
    count = [side // factor for side, factor in zip(shape, factors, strict=True)]
    number = np.ravel_multi_index(np.meshgrid(*block, indexing="ij"), count).ravel()
    return (np.arange(np.prod(count))[:, None] == number) / np.prod(factors)


@pytest.mark.parametrize("factors", FACTORS)
def test_measurement_is_the_mean_of_each_block(factors, rng):
    volume = draw_volume(rng, factors)
    measured = BlockAverage(factors).measure(volume).flatten(1).numpy()
    np.testing.assert_allclose(measured, volume.flatten(1).numpy() @ dense(volume.shape[2:], factors).T, atol=1e-12)


@pytest.mark.parametrize("factors", FACTORS)
def test_degradation_is_an_orthogonal_projection(factors, rng):
    average, x = BlockAverage(factors), draw_volume(rng, factors)
    y = torch.randn_like(x)
    torch.testing.assert_close((average(x) * y).sum(), (x * average(y)).sum(), rtol=0, atol=1e-10)  # A = A^T
    torch.testing.assert_close(average(average(x)), average(x), rtol=0, atol=1e-12)  # A = A^2


@pytest.mark.parametrize("factors", FACTORS)
def test_projection_is_the_nearest_volume_with_the_measurement(factors, rng):
    average, volume = BlockAverage(factors), draw_volume(rng, factors, largest=2)
    measured = average(torch.randn_like(volume))
    matrix = dense(volume.shape[2:], factors)
    x, y = volume.flatten(1).numpy().T, measured.flatten(1).numpy().T
    nearest = x + np.linalg.pinv(matrix) @ (matrix @ y - matrix @ x)
    np.testing.assert_allclose(average.project(volume, measured).flatten(1).numpy().T, nearest, atol=1e-10)


@pytest.mark.parametrize("factors", FACTORS)
def test_projection_reproduces_the_measurement_in_float32(factors, rng):
    average, volume = BlockAverage(factors), draw_volume(rng, factors).float()
    measured = average(torch.randn_like(volume))
    torch.testing.assert_close(average(average.project(volume, measured)), measured, rtol=0, atol=1e-5)


def keys_matrix(coarse, factor):
    """Refinement of a line by cubic convolution (Keys 1981, a = -0.75), ends repeated: (coarse * factor, coarse)."""
    matrix = np.zeros((coarse * factor, coarse))
    for fine in range(coarse * factor):
        place = (fine + 0.5) / factor - 0.5
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - tap)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[fine, min(max(tap, 0), coarse - 1)] += near if d <= 1 else far
    return matrix if factor > 1 else np.eye(coarse)


@pytest.mark.parametrize("factors", FACTORS)
def test_interpolation_is_cubic_with_the_measurement_of_the_blocks(factors, rng):
    average = BlockAverage(factors)
    blocks = average(draw_volume(rng, factors))
    smooth = average.interpolate(blocks)
    torch.testing.assert_close(average(smooth), blocks, rtol=0, atol=1e-12)
    coarse = average.measure(blocks).numpy()
    lines = [keys_matrix(side, factor) for side, factor in zip(coarse.shape[2:], factors, strict=True)]
    cubic = np.einsum("bcijk,hi,wj,dk->bchwd", coarse, *lines)
    expected = average.project(torch.from_numpy(cubic), blocks)
    torch.testing.assert_close(smooth, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("factors", [(4, 4), (0, 1, 1), (2, 2.5, 1), (-1, 1, 1)])
def test_blocks_that_are_none_are_refused(factors):
    with pytest.raises(ValueError, match="three whole numbers of at least 1"):
        BlockAverage(factors)


def test_a_volume_of_broken_blocks_is_refused():
    with pytest.raises(ValueError, match=r"8x9x8 is not a multiple of the block \(4, 4, 4\)"):
        BlockAverage((4, 4, 4))(torch.zeros(8, 9, 8))


def test_background_outside_and_the_measurement_hold_at_once_and_nothing_is_nearer(rng):
    """Against the general projection onto affine constraints, of random volumes, a quarter of whose voxels lie outside."""
    average = BlockAverage((2, 1, 2))
    truth, volume = (torch.from_numpy(rng.uniform(-1, 0.5, (1, 1, 4, 3, 4))) for _ in range(2))
    inside = torch.from_numpy(rng.random((1, 1, 4, 3, 4)) > 0.25)
    truth = truth.where(inside, -1.0)
    result = average.project_within(volume, average(truth), inside)
    free = inside.flatten().nonzero().flatten().numpy()
    rows = torch.stack([average.measure(one.reshape(truth.shape)).flatten() for one in torch.eye(48).double()], dim=1).numpy()
    start = volume.where(inside, -1.0).flatten().numpy()
    missing = average.measure(truth).flatten().numpy() - rows @ start
    nearest = start.copy()
    nearest[free] += np.linalg.pinv(rows[:, free]) @ missing
    np.testing.assert_allclose(result.flatten().numpy(), nearest, atol=1e-10)
    assert (result[~inside] == -1).all()


def test_blocks_that_contradict_the_background_outside_keep_their_measurement(rng):
    average = BlockAverage((2, 2, 2))
    truth = torch.from_numpy(rng.uniform(-0.5, 0.5, (1, 1, 4, 4, 4)))
    inside = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    inside[..., 2:] = True
    result = average.project_within(torch.zeros_like(truth), average(truth), inside)
    torch.testing.assert_close(average(result), average(truth))
    torch.testing.assert_close(result, average.project(torch.zeros_like(truth), average(truth)))
    plain = BlockAverage((2, 2, 2), consistency=False).project_within(torch.zeros_like(truth), average(truth), inside)
    assert (plain == 0).all()
