# SPDX-License-Identifier: Apache-2.0
import json
import random

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.grid import RestoreGridd
from scripts.data.read import read_source
from scripts.data.volumes import LoadVolumesd, pad_to_multiple, read_volume
from scripts.errors import BadInput
from scripts.measurement import AsScanned
from scripts.measurement.degradations import BlockAverage


@pytest.fixture
def rng():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def small_volumes_stay_small(monkeypatch):
    monkeypatch.setattr("scripts.data.volumes.SMALLEST_GRID", 1)


def save(path, voxels, affine=None):
    nib.save(nib.Nifti1Image(np.asarray(voxels), np.eye(4) if affine is None else affine), path)
    return str(path)


def draw(rng, shape=(6, 7, 8)):
    return rng.random(shape, dtype=np.float32)


def one_line(error):
    return "\n" not in str(error.value)


def test_conditions_become_channels_and_the_target_a_volume(tmp_path, rng):
    volumes = [draw(rng) for _ in range(3)]
    paths = [save(tmp_path / f"{name}.nii.gz", v) for name, v in zip("abc", volumes, strict=True)]
    data = LoadVolumesd()({"case": "x", "image": paths[:2], "label": paths[2]})
    assert isinstance(data["image"], MetaTensor)
    assert data["image"].dtype == data["label"].dtype == torch.float32
    np.testing.assert_array_equal(data["image"].numpy(), np.stack(volumes[:2]))
    np.testing.assert_array_equal(data["label"].numpy(), volumes[2][None])
    assert data["image"].meta["filename_or_obj"] == paths[0]
    assert data["image"].meta["grid_shape"] == [6, 7, 8]
    assert data["case"] == "x"


def test_a_single_path_without_label_and_case_is_enough(tmp_path, rng):
    data = LoadVolumesd()({"image": save(tmp_path / "sub-01_t1.nii.gz", draw(rng))})
    assert data["image"].shape == (1, 6, 7, 8)
    assert data["case"] == "sub-01_t1"
    assert "label" not in data


def test_voxels_turn_to_ras_and_stay_where_they_are_in_space(tmp_path, rng):
    voxels = draw(rng)
    affine = np.array([[0, 0, -2.0, 30], [-1.5, 0, 0, 10], [0, 1.25, 0, -5], [0, 0, 0, 1]])  # stored as PSL
    volume = read_volume(save(tmp_path / "a.nii", voxels, affine))
    assert volume.meta["source_axcodes"] == "PSL"
    assert volume.meta["source_affine"].dtype == np.float64
    np.testing.assert_array_equal(volume.meta["source_affine"], affine)
    assert "".join(nib.aff2axcodes(volume.affine.numpy())) == "RAS"
    for index in np.ndindex(*volume.shape[1:]):
        stored = np.linalg.solve(affine, volume.affine.numpy() @ [*index, 1])[:3]
        assert volume[0][index] == voxels[tuple(stored.round().astype(int))]


def test_the_affine_is_the_stored_one_even_when_the_voxel_size_disagrees(tmp_path, rng):
    image = nib.Nifti1Image(draw(rng), np.eye(4))
    image.header["pixdim"][1:4] = 3
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").affine, np.eye(4))


def test_scaled_integers_and_trailing_axes_are_read(tmp_path, rng):
    voxels = draw(rng)
    image = nib.Nifti1Image(voxels[..., None, None], np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(volume[0].numpy(), voxels, atol=1 / 2**16)  # int16 over a range of 1


def test_missing_truncated_and_foreign_files_are_named(tmp_path, rng):
    whole = save(tmp_path / "whole.nii.gz", draw(rng, (20, 20, 20)))
    content = (tmp_path / "whole.nii.gz").read_bytes()
    for name, part in {"cut.nii.gz": content[: len(content) // 2], "empty.nii.gz": b"", "text.nii": b"hello"}.items():
        (tmp_path / name).write_bytes(part)
        with pytest.raises(BadInput, match=rf"^{tmp_path / name}: (cannot be read as NIfTI|holds \d bytes, too few)") as error:
            LoadVolumesd()({"image": [whole, str(tmp_path / name)]})
        assert one_line(error)
    with pytest.raises(BadInput, match=r"none\.nii\.gz: there is no such file"):
        read_volume(tmp_path / "none.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: np.where(v > 0.9, np.nan, v), "holds NaN or infinite voxels"),
        (lambda v: np.where(v > 0.9, -np.inf, v), "holds NaN or infinite voxels"),
        (lambda v: np.full_like(v, 3), "every voxel is 3"),
        (lambda v: np.stack([v, v], -1), "is 6x7x8x2 and so not a 3D volume"),
        (lambda v: v[..., 0], "is 6x7 and so not a 3D volume"),
        (lambda v: v[..., :4], "is 6x7x4, but a volume needs at least 5 voxels a side"),
        (lambda v: v.astype(np.complex64), "holds complex64 values"),
    ],
)
def test_an_unusable_volume_is_refused_by_its_path(tmp_path, rng, spoil, message):
    path = save(tmp_path / "a.nii.gz", spoil(draw(rng)))
    with pytest.raises(BadInput, match=rf"^{path}: {message}") as error:
        read_volume(path)
    assert one_line(error)


def test_a_single_slice_in_two_frames_of_reference_is_called_what_it_is(tmp_path, rng):
    image = nib.Nifti1Image(draw(rng)[..., 0], np.eye(4))
    image.set_qform(np.diag([1, 1, 2, 1]), 1)
    image.set_sform(np.eye(4), 2)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(BadInput, match="is 6x7 and so not a 3D volume"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_mask_alone_may_be_empty(tmp_path, rng):
    nothing = np.zeros((6, 7, 8), np.uint8)
    paths = {"image": save(tmp_path / "a.nii.gz", draw(rng)), "mask": save(tmp_path / "b.nii.gz", nothing)}
    assert not LoadVolumesd(("image", "mask"), masks=["mask"])(paths)["mask"].any()
    with pytest.raises(BadInput, match="every voxel is 0"):
        LoadVolumesd(("image", "mask"))(paths)


def test_an_affine_that_places_nothing_is_refused(tmp_path, rng):
    image = nib.Nifti1Image(draw(rng), None)
    image.header.set_sform(np.diag([1.0, 1, 0, 1]), code=1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(BadInput, match="affine does not place the voxels"):
        read_volume(tmp_path / "a.nii")


def test_grids_of_different_size_are_refused_in_the_words_of_the_manual(tmp_path, rng):
    first, second = save(tmp_path / "t1ce.nii.gz", draw(rng)), save(tmp_path / "flair.nii.gz", draw(rng, (6, 7, 9)))
    expected = (
        "case 0042: t1ce.nii.gz is 6x7x8 but flair.nii.gz is 6x7x9; "
        "add --resample, or --register where the head moved (docs/your_data.md#grids)"
    )
    for data in ({"image": [first, second]}, {"image": first, "label": second}):
        with pytest.raises(BadInput) as error:
            LoadVolumesd()({"case": "0042", **data})
        assert str(error.value) == expected


def test_grids_apart_in_space_are_refused_but_rounding_is_not(tmp_path, rng):
    """Positions are written with two decimals; and a millidegree is 0.009 mm at the end of 512 voxels of 1 mm."""
    moved, rounded, turned = np.eye(4), np.eye(4), np.eye(4)
    moved[0, 3], rounded[0, 3] = 0.5, 0.005
    turned[:2, :2] = [[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]
    paths = [save(tmp_path / f"{i}.nii", draw(rng), affine) for i, affine in enumerate((None, moved, rounded, turned))]
    image = LoadVolumesd()({"image": [paths[0], paths[2]]})["image"]
    np.testing.assert_array_equal(image[1], nib.load(paths[2]).get_fdata(dtype=np.float32))  # as it is on disk
    with pytest.raises(BadInput, match=r"0\.nii and 1\.nii lie up to 0\.5 mm apart"):
        LoadVolumesd()({"image": paths[:2]})
    with pytest.raises(BadInput, match=r"0\.nii and 3\.nii lie up to 0\.39 mm apart"):  # 0.05 of the 7.8 mm to a corner
        LoadVolumesd()({"image": [paths[0], paths[3]]})


def test_the_same_grid_may_be_stored_in_another_orientation(tmp_path, rng):
    voxels = draw(rng)
    mirrored = np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    paths = [save(tmp_path / "a.nii", voxels), save(tmp_path / "b.nii", voxels[::-1], mirrored)]
    image = LoadVolumesd()({"image": paths})["image"]
    assert torch.equal(image[0], image[1])


def test_a_simulated_measurement_is_padded_at_the_end_and_averaged(tmp_path, rng):
    voxels = draw(rng) + 1
    path = save(tmp_path / "a.nii.gz", voxels)
    data = LoadVolumesd(degradation=BlockAverage((4, 4, 4)), simulate=True)({"image": [path, path], "label": path})
    padded = np.pad(voxels, [(0, 2), (0, 1), (0, 0)], constant_values=voxels.min())
    blocks = padded.reshape(2, 4, 2, 4, 2, 4).mean((1, 3, 5)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    np.testing.assert_array_equal(data["label"][0].numpy(), padded)
    np.testing.assert_array_equal(data["image"][1].numpy(), padded)
    np.testing.assert_allclose(data["image"][0].numpy(), blocks, rtol=1e-6)  # float32 sums in another order
    assert data["image"].meta["grid_shape"] == data["label"].meta["grid_shape"] == [6, 7, 8]


def test_a_measurement_is_repeated_onto_the_grid_of_the_others(tmp_path, rng):
    coarse, fine = draw(rng, (5, 6, 5)), draw(rng, (5, 12, 20))
    affine = np.diag([2.0, 4, 8, 1])
    fine_affine = np.array([[2.0, 0, 0, 0], [0, 2, 0, -1], [0, 0, 2, -3], [0, 0, 0, 1]])  # same edges: -2 and -4 mm
    paths = [save(tmp_path / "coarse.nii", coarse, affine), save(tmp_path / "fine.nii", fine, fine_affine)]
    data = LoadVolumesd(degradation=BlockAverage((1, 2, 4)))({"image": paths, "label": paths[1]})
    np.testing.assert_allclose(data["image"].affine, fine_affine, atol=1e-12)
    np.testing.assert_array_equal(data["image"][0].numpy(), coarse.repeat(2, 1).repeat(4, 2))
    np.testing.assert_array_equal(data["image"].meta["source_affine"], affine)
    assert data["image"].meta["grid_shape"] == [5, 12, 20]


def test_a_target_on_the_coarse_grid_is_refused(tmp_path, rng):
    path = save(tmp_path / "coarse.nii", draw(rng))
    with pytest.raises(BadInput, match=r"is 6x7x8 and so 24x28x32 on the fine grid but coarse\.nii is 6x7x8"):
        LoadVolumesd(degradation=BlockAverage((4, 4, 4)))({"image": path, "label": path})


def test_a_volume_too_small_for_the_networks_is_filled_up_and_comes_back(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("scripts.data.volumes.SMALLEST_GRID", 17)
    voxels = draw(rng, (6, 20, 18))
    loaded = LoadVolumesd()({"image": save(tmp_path / "thin.nii", voxels)})
    assert loaded["image"].shape == (1, 17, 20, 18)
    restored = RestoreGridd()({**loaded, "pred": loaded["image"]})["pred"]
    np.testing.assert_array_equal(restored[0], voxels)


def test_a_scan_that_is_fine_already_is_refused(tmp_path, rng):
    path = save(tmp_path / "fine.nii", draw(rng, (161, 6, 7)))
    with pytest.raises(BadInput, match="would become 644x24x28"):
        LoadVolumesd(degradation=BlockAverage((4, 4, 4)))({"image": path})


def test_padding_leaves_whole_volumes_alone():
    volume = torch.rand(1, 4, 8, 12)
    assert torch.equal(pad_to_multiple(volume, (4, 4, 4)), volume)
    assert pad_to_multiple(volume, (3, 8, 5)).shape == (1, 6, 8, 15)


@pytest.mark.parametrize(
    ("spacing", "told", "along_coarsest"),
    [
        ((1, 1, 5), 2, 2),  # gaps
        ((2, 2, 5), 2, 2),
        ((1, 2, 1.5), 1.5, 2),  # of slices that are finer than pixels are high
        ((0.5, 1.5, 1.2), 1.0, 1.5),
        ((5, 1, 1), 4, 4),  # turned since
    ],
)
def test_a_thickness_is_of_slices_and_not_of_pixels_that_are_coarser(spacing, told, along_coarsest, tmp_path, rng):
    nib.save(nib.Nifti1Image(rng.random((5, 6, 7)), np.diag([*spacing, 1.0])), tmp_path / "x_T1w.nii.gz")
    (tmp_path / "x_T1w.json").write_text(json.dumps({"SliceThickness": told}))
    assert read_source(tmp_path / "x_T1w.nii.gz").thickness == pytest.approx(along_coarsest)


def test_few_slices_that_overlap_are_kept_within_the_result(tmp_path, rng, monkeypatch):
    """Of five slices every 3 mm, 3.8 mm thick, the last one ends with the volume, not in what networks need beside it."""
    monkeypatch.setattr("scripts.data.volumes.SMALLEST_GRID", 17)
    nib.save(nib.Nifti1Image(rng.uniform(1, 9, (24, 24, 5)), np.diag([1.0, 1, 3, 1])), tmp_path / "x_T1w.nii.gz")
    (tmp_path / "x_T1w.json").write_text('{"SliceThickness": 3.8}')
    image = LoadVolumesd(["image"], AsScanned())({"image": [str(tmp_path / "x_T1w.nii.gz")]})["image"]
    operator, y = AsScanned().of(image), torch.from_numpy(nib.load(tmp_path / "x_T1w.nii.gz").get_fdata())
    (axis,) = [axis for axis in operator.axes if axis is not None]
    assert (axis.voxels, axis.beyond, image.meta["grid_shape"][2]) == (17, 2, 15)
    kept = operator.project(torch.rand(1, 24, 24, 17).double(), image.as_tensor().double())[0, ..., :15]
    of_result = axis._replace(voxels=15, beyond=0).matrix()
    np.testing.assert_allclose(kept.numpy() @ of_result.T, y, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "thickness"),
    [
        (b'{"SliceThickness": 4}', 4),
        ('{"SliceThickness": 4}'.encode("utf-8-sig"), 4),
        ('{"SliceThickness": 4}'.encode("utf-16"), 4),
        (b'{"SliceThickness": "4.0"}', 4),
        (b'{"SliceThickness": ["4"]}', 4),
        (b'{"SliceThickness": null}', 0),
        (b'{"EchoTime": 0.1}', 0),
        (b"[1]", 0),
        (b'{"SliceThickness": "4 mm"}', np.nan),
        (b'{"SliceThickness": [4, 5]}', np.nan),
        (b'{"SliceThickness": true}', np.nan),
        (b'{"SliceThickness": 0}', np.nan),
        (b'{"SliceThickness": 4000}', np.nan),
        (b'{"SliceThickness": 1' + b"0" * 400 + b"}", np.nan),
        (b"{", np.nan),
        (b"\xe4", np.nan),
    ],
)
def test_a_thickness_is_read_of_what_editors_and_converters_write(content, thickness, tmp_path, rng):
    nib.save(nib.Nifti1Image(rng.random((5, 6, 7)), np.eye(4)), tmp_path / "x_T1w.nii.gz")
    (tmp_path / "x_T1w.json").write_bytes(content)
    np.testing.assert_equal(read_source(tmp_path / "x_T1w.nii.gz").thickness, thickness)
