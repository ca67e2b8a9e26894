# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import random

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose
from surroundings import SCANS, needs_scans

from scripts.data.cases import find_cases
from scripts.data.grid import CropToContentd, RestoreGridd, content_box
from scripts.data.volumes import LoadVolumesd
from scripts.measurement.degradations import BlockAverage

ORIENTATIONS = ["".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)]
FACTORS = [None, (4, 4, 4), (1, 1, 4)]
AFFINE_TOLERANCE_MM = 1e-6


@pytest.fixture
def rng():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def oblique_affine(rng, orientation, thick=""):
    """An affine of this orientation, turned by less than half the way to another one, with uneven voxels, four times as long
    along the axis `thick`, such as "IS".
    """
    turn, triangle = np.linalg.qr(np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3)))
    turn = turn * np.sign(np.diag(triangle))
    voxels = np.zeros((3, 3))
    for axis, code in enumerate(orientation):
        world = ["LR", "PA", "IS"].index(next(pair for pair in ("LR", "PA", "IS") if code in pair))
        voxels[world, axis] = rng.uniform(0.7, 1.4) * (1 if code in "RAS" else -1) * (1 + 3 * (code in thick))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ voxels, rng.uniform(-100, 100, 3)
    affine = affine.astype(np.float32).astype(np.float64)  # as NIfTI stores it
    assert "".join(nib.aff2axcodes(affine)) == orientation
    return affine


def draw_head(rng, smallest, largest):
    """A box of noise somewhere in an empty volume of odd sides."""
    voxels = np.zeros(tuple(rng.integers(smallest // 2, largest // 2, 3) * 2 + 1), dtype=np.float32)
    box = tuple(slice(low, low + side // 3) for side in voxels.shape for low in [rng.integers(side - side // 3)])
    voxels[box] = rng.random(voxels[box].shape, dtype=np.float32) + 0.5
    return voxels


def write(tmp_path, voxels, affine):
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "head.nii")
    return str(tmp_path / "head.nii")


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_all_orientations_return_bit_by_bit(tmp_path, rng, factors):
    degradation = BlockAverage(factors) if factors else None
    load = LoadVolumesd(degradation=degradation, simulate=True)
    forth = Compose([load, CropToContentd(degradation=BlockAverage(factors) if factors else None)])
    for orientation in ORIENTATIONS:
        voxels, affine = draw_head(rng, 33, 45), oblique_affine(rng, orientation)
        path = write(tmp_path, voxels, affine)
        data = forth({"image": [path], "label": path})
        back = RestoreGridd()({**data, "pred": data["label"]})["pred"]
        np.testing.assert_array_equal(back[0].numpy(), voxels, err_msg=orientation)
        np.testing.assert_array_equal(back.affine.numpy(), affine, err_msg=orientation)


@pytest.mark.parametrize("thick", ["", "LR", "PA", "IS"])
def test_the_finer_grid_has_its_blocks_where_the_coarse_voxels_are(tmp_path, rng, thick):
    """The thick axis of the scan is refined, wherever it lies and however it is stored; without one all three are."""
    factors = (1, 1, 4) if thick else (4, 4, 4)
    forth = Compose([LoadVolumesd(degradation=BlockAverage(factors)), CropToContentd(degradation=BlockAverage(factors))])
    for orientation in ORIENTATIONS:
        coarse, affine = draw_head(rng, 9, 15), oblique_affine(rng, orientation, thick)
        data = forth({"image": [write(tmp_path, coarse, affine)]})
        seen = data["image"].as_tensor()
        torch.testing.assert_close(BlockAverage(factors)(seen), seen, msg=orientation)  # where the networks expect the blocks
        fine = RestoreGridd()({**data, "pred": seen})["pred"]
        blocks = np.array([4 if code in thick or not thick else 1 for code in orientation])
        expected = coarse
        for axis, block in enumerate(blocks):
            expected = expected.repeat(block, axis)
        np.testing.assert_array_equal(fine[0].numpy(), expected, err_msg=orientation)
        index = np.indices(coarse.shape).reshape(3, -1)
        centres = index * blocks[:, None] + (blocks[:, None] - 1) / 2
        there = nib.affines.apply_affine(affine, index.T)
        here = nib.affines.apply_affine(fine.affine.numpy(), centres.T)
        np.testing.assert_allclose(here, there, rtol=0, atol=AFFINE_TOLERANCE_MM, err_msg=orientation)


def test_other_conditions_of_a_sagittal_scan_turn_with_it(tmp_path, rng):
    coarse = draw_head(rng, 9, 15)
    affine, fine_affine = np.diag([4.0, 1, 1, 1]), np.eye(4)
    fine_affine[0, 3] = -1.5  # voxel edges stay put
    fine = rng.random((coarse.shape[0] * 4, *coarse.shape[1:]), dtype=np.float32)
    nib.save(nib.Nifti1Image(fine, fine_affine), tmp_path / "fine.nii")
    paths = [write(tmp_path, coarse, affine), str(tmp_path / "fine.nii")]
    data = LoadVolumesd(degradation=BlockAverage((1, 1, 4)))({"image": paths})
    assert data["image"].meta["axcodes"] == "SAR"
    back = RestoreGridd()({**data, "pred": data["image"]})["pred"]
    np.testing.assert_array_equal(back[0], coarse.repeat(4, 0))
    np.testing.assert_array_equal(back[1], fine)
    np.testing.assert_allclose(back.affine, fine_affine, rtol=0, atol=AFFINE_TOLERANCE_MM)
    assert json.loads(data["image"].meta["doubts"]) == [
        "head.nii has sagittal slices, refined right-left; the weights saw axial ones"
    ]


def test_it_works_after_the_dataloader_and_with_other_meta(tmp_path, rng):
    voxels, affine = draw_head(rng, 41, 61), oblique_affine(rng, "LIP")
    dataset = Dataset([{"case": "a", "image": [write(tmp_path, voxels, affine)]}], Compose([LoadVolumesd(), CropToContentd()]))
    (batch,) = DataLoader(dataset, batch_size=1, collate_fn=list_data_collate)
    batch["pred"] = batch["image"] * 1.0
    batch["plain"] = batch["image"].as_tensor()
    (data,) = decollate_batch(batch)
    data = RestoreGridd(keys=("pred", "plain"))(data)
    for key in ("pred", "plain"):
        np.testing.assert_array_equal(data[key][0].numpy(), voxels)
        np.testing.assert_array_equal(data[key].affine.numpy(), affine)
        assert data[key].meta["filename_or_obj"] == str(tmp_path / "head.nii")


def test_without_a_crop_the_volume_returns_too(tmp_path, rng):
    voxels, affine = draw_head(rng, 9, 15), oblique_affine(rng, "SAR")
    data = LoadVolumesd(degradation=BlockAverage((4, 4, 4)), simulate=True)({"image": write(tmp_path, voxels, affine)})
    back = RestoreGridd()({**data, "pred": data["image"]})["pred"]
    assert back.shape[1:] == voxels.shape
    np.testing.assert_array_equal(back.affine.numpy(), affine)


def test_an_affine_of_full_float64_precision_returns_bit_by_bit(tmp_path, rng):
    for orientation in ORIENTATIONS:  # the affine of a quaternion is not rounded to float32
        image = nib.Nifti1Image(draw_head(rng, 33, 45), None)
        image.header.set_qform(oblique_affine(rng, orientation), code=1)
        nib.save(image, tmp_path / "head.nii")
        data = CropToContentd()(LoadVolumesd()({"image": str(tmp_path / "head.nii")}))
        back = RestoreGridd()({**data, "pred": data["image"]})["pred"]
        np.testing.assert_array_equal(back.affine.numpy(), nib.load(tmp_path / "head.nii").affine)


def test_outside_the_crop_lies_what_was_asked_for(tmp_path, rng):
    data = LoadVolumesd()({"image": write(tmp_path, draw_head(rng, 61, 71) - 7, np.eye(4))})
    data = CropToContentd()(data)
    ones = torch.ones_like(data["image"].as_tensor())
    restore = RestoreGridd(keys=("pred", "uncertainty"), fill=("background", 0.25))
    data = restore({**data, "pred": ones, "uncertainty": ones})
    assert set(data["pred"].unique().tolist()) == {-7, 1}
    assert set(data["uncertainty"].unique().tolist()) == {0.25, 1}


def test_a_prediction_of_another_size_is_a_mistake(tmp_path, rng):
    data = LoadVolumesd()({"image": write(tmp_path, draw_head(rng, 9, 15), np.eye(4))})
    with pytest.raises(ValueError, match="differ in size"):
        RestoreGridd()({**data, "pred": torch.zeros(1, 5, 5, 5)})


def test_boxes_hold_the_content_on_multiples_and_are_not_too_small(rng):
    for _ in range(300):
        sides, multiple = rng.integers(5, 80, 3), rng.integers(1, 9, 3)
        low = [int(rng.integers(side)) for side in sides]
        high = [int(rng.integers(start, side)) + 1 for start, side in zip(low, sides, strict=True)]
        volume = torch.zeros(2, *(int(side) for side in sides))
        volume[(int(rng.integers(2)), *map(slice, low, high))] = 1
        for span, side, m, start, stop in zip(content_box(volume, multiple), sides, multiple, low, high, strict=True):
            assert span.start <= start
            assert span.stop >= stop
            assert 0 <= span.start < span.stop <= side
            assert span.start % m == 0
            assert span.stop % m == 0 or span.stop == side
            assert span.stop - span.start >= min(32, side)


def test_a_crop_keeps_the_minimum_of_its_volume():
    volume = torch.zeros(1, 64, 64, 64)
    volume[:, :40, 10:50, :] = 1  # a solid block that touches three sides
    data = CropToContentd()({"image": MetaTensor(volume)})
    assert data["image"].shape < volume.shape
    assert data["image"].min() == 0


def test_crops_move_the_affine_and_tell_where_they_were(rng):
    volume = torch.zeros(1, 80, 80, 80)
    volume[:, 40:70, 20:60, 9:11] = 1
    affine = torch.from_numpy(oblique_affine(rng, "RAS"))
    data = {"image": MetaTensor(volume, affine=affine), "label": MetaTensor(volume * 2, affine=affine)}
    cropped = CropToContentd(degradation=BlockAverage((4, 4, 4)))(data)
    image = cropped["image"]
    assert image.meta["crop_start"] == [36, 16, 0]
    assert image.meta["padded_shape"] == [80, 80, 80]
    assert image.shape == (1, 36, 48, 32)
    assert torch.equal(cropped["label"], image * 2)
    corner = torch.tensor([36.0, 16, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(image.affine[:, 3], affine @ corner)
    assert data["image"].shape == (1, 80, 80, 80)


@needs_scans
@pytest.mark.parametrize(("folder", "target", "factors"), [("t1", "t1", (4, 4, 4)), ("glioma", "flair", (1, 1, 4))])
def test_a_real_target_returns_as_it_is_on_disk(folder, target, factors):
    case = find_cases(SCANS / folder, ["t1"], target=target, split="val")[0]
    load = LoadVolumesd(degradation=BlockAverage(factors), simulate=True)
    data = CropToContentd(degradation=BlockAverage(factors))(load(case))
    back = RestoreGridd(fill=0)({**data, "pred": data["label"]})["pred"]
    image = nib.load(case["label"])
    np.testing.assert_array_equal(back[0].numpy(), image.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(back.affine.numpy(), image.affine)
