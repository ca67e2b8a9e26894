# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from scripts.measurement.intensity import MEDIAN, background, intensity_range, tissue_range


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


def test_a_range_of_tissue_follows_its_gain_and_neither_lesions_nor_noisy_air(seed):
    volume = head(seed)
    plain, louder = tissue_range(volume), tissue_range(3 * volume)
    assert plain.normalize(volume)[volume > 0].median() == pytest.approx(MEDIAN - 1)
    torch.testing.assert_close(louder.normalize(3 * volume), plain.normalize(volume))
    torch.testing.assert_close(plain.restore(plain.normalize(volume)), volume, rtol=1e-5, atol=1e-4)
    ill = volume + torch.rand_like(volume)
    ill[..., 4, 4, 3:6] = 450
    assert float(tissue_range(ill).high) == pytest.approx(float(plain.high), rel=0.1)
    assert float(intensity_range(ill).high) > 2.9 * float(intensity_range(volume).high)


def test_a_volume_without_tissue_has_a_range(seed):
    assert tissue_range(torch.full((1, 1, 5, 5, 5), 7.0)).normalize(torch.full((1, 1, 5, 5, 5), 7.0)).eq(-1).all()
