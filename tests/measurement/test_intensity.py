# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from scripts.measurement.intensity import background, background_alone, far_background, intensity_range


def head(seed):
    torch.manual_seed(seed)
    volume = torch.zeros(1, 1, 12, 12, 12)
    volume[..., 3:9, 3:9, 3:9] = 50 + 100 * torch.rand(6, 6, 6)
    return volume


def test_a_single_dark_voxel_does_not_become_the_background(seed):
    volume = head(seed)
    volume[0, 0, 5, 5, 5] = -60
    assert background(volume) == 0


def test_noise_up_to_the_edge_leaves_the_minimum_as_background(seed):
    volume = head(seed) + torch.rand(1, 1, 12, 12, 12)
    assert background(volume) == volume.min()


def test_normalising_and_restoring_is_an_identity_for_every_channel(seed):
    volume = torch.cat([head(seed), 7 * head(seed + 1) - 300], dim=1)
    scale = intensity_range(volume)
    normal = scale.normalize(volume)
    assert normal.amin() == -1
    torch.testing.assert_close(scale.restore(normal), volume, rtol=1e-5, atol=1e-3)  # float32 of values up to 700


@pytest.mark.parametrize(("around", "scale", "shift"), [(0, 1, 0), (-300.5, 7, -300.5), (-0.6, 0.02, -0.6), (400, 1, 400)])
def test_the_darkness_around_a_head_is_near_its_tissue_on_any_scale(around, scale, shift, seed):
    volume = scale * head(seed)[0, 0] + shift
    assert volume.min() == pytest.approx(around)
    assert far_background(volume) is None


@pytest.mark.parametrize("far", [-1000.0, -50000.0, 4095.0])
def test_a_value_far_from_tissue_is_told_and_what_to_take_it_for(far, seed):
    volume = head(seed)[0, 0]
    assert far_background(torch.where(volume > 0, volume, far)) == (far, 0)
    normalised = (volume - 100) / 30
    wanted = normalised[volume > 0].sort().values[1]  # of 216 the two darkest are 1 %
    common, value = far_background(torch.where(volume > 0, normalised, far))
    assert common == far and value == pytest.approx(float(wanted))


def test_holes_and_single_corners_are_not_what_lies_around(seed):
    around = head(seed)[0, 0] == 0
    assert background_alone(around)
    around[5, 5, 5] = True
    assert not background_alone(around)
    corner = torch.zeros_like(around)
    corner[0, 0, 0] = True
    assert not background_alone(corner)
