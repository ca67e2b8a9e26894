# SPDX-License-Identifier: Apache-2.0
"""Pixels that weights saw, and the way back to the scan's own grid."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from scripts.data.doctor import doctor
from scripts.data.grid import CropToContentd, RestoreGridd
from scripts.data.volumes import LoadVolumesd
from scripts.data.within_slices import ResampleWithinSlicesd, affine_of_sides, with_sides
from scripts.errors import BadInput


@pytest.fixture
def scan(rng, tmp_path):
    """A smooth bright ball in thick slices as scanners store them, its affine and its path."""
    shape, spacing = (int(rng.integers(60, 90)), int(rng.integers(60, 90)), 12), (0.7, 0.7, 6.5)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = rng.uniform(-80, 80, 3)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in shape], indexing="ij"))
    voxels = (1000 * np.clip(0.8 - (places**2).sum(axis=0), 0, None)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, affine), path := tmp_path / "scan.nii.gz")
    return voxels, nib.load(path).affine, str(path)


def prepared(path, mm):
    return Compose([LoadVolumesd(), ResampleWithinSlicesd(mm=mm), CropToContentd()])({"image": [path]})


@pytest.mark.parametrize("mm", [1.5, 0.5])
def test_a_result_returns_on_the_voxels_of_the_scan(scan, mm):
    voxels, affine, path = scan
    data = prepared(path, mm)
    spacing = np.linalg.norm(np.asarray(data["image"].affine)[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, [mm, mm, 6.5], rtol=0.02)
    back = RestoreGridd()({**data, "pred": data["image"].as_tensor()})["pred"]
    np.testing.assert_array_equal(back.affine.numpy(), affine)
    assert back.shape[1:] == voxels.shape
    assert np.sqrt(np.mean((back[0].numpy() - voxels) ** 2)) < 0.02 * voxels.max()


def test_pixels_like_those_and_no_wish_change_nothing(scan):
    voxels, _, path = scan
    for mm in (0.0, 0.7, 0.75):
        data = prepared(path, mm)
        back = RestoreGridd()({**data, "pred": data["image"].as_tensor()})["pred"]
        np.testing.assert_array_equal(back[0].numpy(), voxels)


def test_a_truth_that_was_not_resampled_stays_as_it_was(scan):
    voxels, affine, path = scan
    both = {"image": [path], "label": path}
    data = Compose([LoadVolumesd(), ResampleWithinSlicesd(["image"], 1.5), CropToContentd(["image"])])(both)
    back = RestoreGridd(["label"])(data)["label"]
    np.testing.assert_array_equal(back[0].numpy(), voxels)
    np.testing.assert_array_equal(back.affine.numpy(), affine)


@pytest.mark.parametrize("after", [(24, 31), (70, 90)])
def test_a_place_keeps_its_brightness(after, rng):
    """Brightness that is linear in world coordinates stays so to a twentieth of a pixel, but for the rim."""
    before, affine = (48, 44), np.diag([*rng.uniform(0.5, 2, 3), 1.0])
    slope = rng.uniform(-1, 1, 2)

    def world(sides, matrix):
        return np.stack(np.meshgrid(*[matrix[i, i] * np.arange(n) + matrix[i, 3] for i, n in enumerate(sides)], indexing="ij"))

    ramp = np.tensordot(slope, world(before, affine), 1)
    resampled = with_sides(torch.from_numpy(ramp)[None, :, :, None], after)[0, :, :, 0].numpy()
    wanted = np.tensordot(slope, world(after, affine_of_sides(affine, before, after)), 1)
    a_twentieth = 0.05 * np.abs(slope * np.diag(affine)[:2] * before / np.array(after)).max()
    np.testing.assert_allclose(resampled[3:-3, 3:-3], wanted[3:-3, 3:-3], atol=a_twentieth)


def test_slices_across_another_axis_are_refused_by_run_and_doctor(rng, tmp_path, capsys):
    voxels = rng.uniform(1, 2, (12, 60, 60)).astype(np.float32)
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([6.5, 0.8, 0.8, 1.0])), path := tmp_path / "in" / "head_t1ce.nii.gz")
    line = r"head_t1ce.nii.gz: its slices are sagittal, of 6.5 x 0.8 x 0.8 mm, and the weights saw axial ones"
    with pytest.raises(BadInput, match=line):
        ResampleWithinSlicesd(mm=1.5)(LoadVolumesd()({"image": [str(path)]}))
    with pytest.raises(BadInput, match=line):
        doctor(tmp_path / "in", ["translation_head"])
    assert "cannot be used" in capsys.readouterr().out
