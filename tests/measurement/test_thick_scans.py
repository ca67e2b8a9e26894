# SPDX-License-Identifier: Apache-2.0
import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data.grid import CropToContentd
from scripts.data.volumes import LoadVolumesd
from scripts.diffusion import Diffusion, sample_ddim
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer
from scripts.measurement import BlockAverage, ThickScans
from scripts.measurement.channels import conditions_and_mask

BLOCKS = [[1, 1, 4], [1, 4, 1], [4, 1, 1]]


def dense(shape, factors):
    """The measurement as a matrix (blocks, voxels), written down entry by entry."""
    block = [np.arange(side) // factor for side, factor in zip(shape, factors, strict=True)]
    count = [side // factor for side, factor in zip(shape, factors, strict=True)]
    number = np.ravel_multi_index(np.meshgrid(*block, indexing="ij"), count).ravel()
    return (np.arange(np.prod(count))[:, None] == number) / np.prod(factors)


@pytest.mark.parametrize("blocks", [BLOCKS, BLOCKS[:2], [[1, 1, 4], [1, 2, 2]]])
def test_projection_is_the_nearest_volume_with_every_scan(blocks, rng):
    volume, truth = torch.randn(2, 1, 1, 4, 8, 4, dtype=torch.float64)
    scans = ThickScans(blocks)
    matrix = np.concatenate([dense((4, 8, 4), block) for block in blocks])
    x, y = volume.flatten().numpy(), truth.flatten().numpy()
    nearest = x + np.linalg.pinv(matrix) @ (matrix @ y - matrix @ x)
    np.testing.assert_allclose(scans.project(volume, scans(truth)).flatten(), nearest, atol=1e-10)


@pytest.mark.parametrize("shown", [False, True], ids=["joint", "interpolated"])
def test_what_is_shown_has_the_measurement_of_every_scan(shown, rng):
    truth, scans = torch.randn(1, 1, 8, 12, 8, dtype=torch.float64), ThickScans(BLOCKS)
    measured = scans.joined([scan(truth) for scan in scans.scans])
    result = scans.shown(measured) if shown else measured
    for scan in scans.scans:
        torch.testing.assert_close(scan(result), scan(truth), rtol=0, atol=1e-12)


def test_of_contradicting_scans_the_first_is_kept_exactly(rng):
    scans, volume = ThickScans(BLOCKS), torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)
    measured = [scan(torch.randn_like(volume)) for scan in scans.scans]
    result = scans.project(volume, scans.joined(measured))
    torch.testing.assert_close(scans.scans[0](result), measured[0], rtol=0, atol=1e-12)


def test_three_files_make_the_channel_that_training_simulates(rng, tmp_path):
    fine = rng.uniform(1, 2, (20, 24, 28)).astype(np.float32)
    affine = np.diag([1.0, 1.25, 1.5, 1])
    nib.save(nib.Nifti1Image(fine, affine), tmp_path / "t1.nii.gz")
    paths = []
    for block in BLOCKS:
        h, w, d = (side // factor for side, factor in zip(fine.shape, block, strict=True))
        thick = fine.reshape(h, block[0], w, block[1], d, block[2]).mean(axis=(1, 3, 5))
        grid = affine @ np.diag([*block, 1])
        grid[:3, 3] = affine[:3, :3] @ ((np.array(block) - 1) / 2)  # the first centre moves into the block
        paths.append(str(tmp_path / f"{len(paths)}.nii.gz"))
        nib.save(nib.Nifti1Image(thick, grid), paths[-1])
    scans = ThickScans(BLOCKS)
    simulated = LoadVolumesd(degradation=scans, simulate=True)({"image": str(tmp_path / "t1.nii.gz")})["image"]
    loaded = LoadVolumesd(degradation=scans)({"image": paths})["image"]
    assert loaded.shape == simulated.shape == (1, 20, 24, 28)
    np.testing.assert_allclose(loaded, simulated, atol=2e-6)  # float32 files
    np.testing.assert_allclose(loaded.affine, affine, atol=1e-6)
    with pytest.raises(BadInput, match="3 scans are needed"):
        LoadVolumesd(degradation=scans)({"image": paths[:2]})


@pytest.mark.parametrize("blocks", [[[1, 1, 4], [1, 1, 6]], []])
def test_averages_that_do_not_commute_are_refused(blocks):
    with pytest.raises(BadInput, match="multiple of the others"):
        ThickScans(blocks)


def test_the_mask_and_the_crop_are_those_of_the_head(rng, tmp_path):
    """Around edges the joint measurement is darker than the background; neither range nor box may follow it."""
    fine = np.full((40, 44, 48), 10.0, dtype=np.float32)
    fine[9:22, 8:20, 13:30] = rng.uniform(100, 300, (13, 12, 17))
    nib.save(nib.Nifti1Image(fine, np.eye(4)), tmp_path / "t1.nii.gz")
    scans = ThickScans(BLOCKS)
    loaded = LoadVolumesd(degradation=scans, simulate=True)({"image": str(tmp_path / "t1.nii.gz")})
    assert loaded["image"].min() < 10  # or there is nothing to test
    cells = np.zeros(fine.shape, bool)
    cells[8:24, 8:20, 12:32] = True  # whole cells of 4 a side around the head
    cropped = CropToContentd(["image"], scans)(loaded)["image"]
    start = cropped.meta["crop_start"]
    assert cropped.meta["background"] == 10
    _, mask, scale = conditions_and_mask(cropped.as_tensor()[None], scans)
    box = tuple(slice(at, at + side) for at, side in zip(start, cropped.shape[1:], strict=True))
    np.testing.assert_array_equal(mask[0, 0] > 0, cells[box])
    assert cells[box].sum() == cells.sum()
    assert scale.low.item() == 10


def test_sampling_keeps_every_scan_and_the_background(rng):
    truth = torch.zeros(1, 1, 24, 20, 28)
    truth[..., 5:18, 4:15, 6:21] = torch.rand(13, 11, 15) + 0.5
    scans = ThickScans(BLOCKS)
    measured = scans.joined([scan(truth) for scan in scans.scans])
    inferer = FusedScoreInferer(Diffusion(sigma_data=0.1), sample_ddim, steps=3, degradation=scans, precision="float32")
    result = inferer(measured, Wave())
    for scan in scans.scans:
        torch.testing.assert_close(scan(result), scan(truth), rtol=0, atol=2e-5)  # roundings of intensities around 1
    outside = BlockAverage(scans.factors)(truth) == 0
    assert outside.any()
    assert not result[outside].any()
    assert (result - measured).abs().max() > 0.01


class Wave(torch.nn.Module):
    """A fixed answer that depends on state and condition."""

    def forward(self, x, x_t, timesteps):
        return torch.sin(3 * x_t + 2 * x[:, :1])
