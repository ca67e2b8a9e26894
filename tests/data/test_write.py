# SPDX-License-Identifier: Apache-2.0
import os
import random
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.write import SaveVolumed, check_output_dir
from scripts.errors import BadInput

AFFINE = np.array([[-0.5, 0.1, 0, 12], [0.1, 0.5, 0, -3], [0, 0, 2, 7.25], [0, 0, 0, 1]]).astype(np.float32)


@pytest.fixture
def volume():
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    voxels = torch.rand(1, 5, 6, 7, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(voxels, affine=torch.from_numpy(AFFINE).double())


def saver(output_dir):
    return SaveVolumed(["pred", "uncertainty"], output_dir, suffixes=["pred", "uncertainty"])


def test_a_written_volume_reads_back_exactly_with_both_forms(tmp_path, volume):
    data = saver(tmp_path / "new" / "output")({"case": "sub-01", "pred": volume})
    path = tmp_path / "new" / "output" / "sub-01" / "sub-01_pred.nii.gz"
    assert data["pred_path"] == str(path)
    image = nib.load(path)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume[0].numpy())
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
    np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-5)  # quaternions are float32
    np.testing.assert_allclose(image.header.get_zooms(), np.linalg.norm(AFFINE[:3, :3], axis=0), rtol=1e-6)


@pytest.mark.parametrize("held", ["0001.dcm", "lesions_by_hand.txt"])
def test_a_folder_is_removed_only_where_an_earlier_run_left_it(tmp_path, volume, held):
    (tmp_path / "a" / "pred").mkdir(parents=True)
    (tmp_path / "a" / "pred" / held).write_bytes(b"x")
    SaveVolumed(["pred"], tmp_path, suffixes=["pred"], provenance=object())({"case": "a", "pred": volume})
    assert (tmp_path / "a" / "pred").exists() == (held == "lesions_by_hand.txt")


def test_missing_keys_are_skipped(tmp_path, volume):
    data = saver(tmp_path)({"case": "a", "pred": volume})
    assert "uncertainty_path" not in data
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["a_pred.nii.gz"]


def test_several_channels_become_a_fourth_axis(tmp_path, volume):
    data = saver(tmp_path)({"case": "a", "pred": volume.repeat(3, 1, 1, 1)})
    assert nib.load(data["pred_path"]).shape == (5, 6, 7, 3)


def test_half_precision_is_written_as_float32(tmp_path, volume):
    data = saver(tmp_path)({"case": "a", "pred": volume.to(torch.bfloat16)})
    assert nib.load(data["pred_path"]).get_data_dtype() == np.float32


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, volume):
    (tmp_path / "file").touch()
    for output_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match="file is a file; give a folder as output_dir"):
            saver(output_dir)({"case": "a", "pred": volume})


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as in a container, may write everywhere
    with pytest.raises(BadInput, match="you may not write in"):
        check_output_dir(tmp_path / "output")


def test_asking_whether_a_folder_can_be_written_creates_nothing(tmp_path):
    check_output_dir(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing_and_the_older_result_whole(tmp_path, volume, monkeypatch):
    def full_disk(image, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    saver(tmp_path)({"case": "old", "pred": volume})
    before = (tmp_path / "old" / "old_pred.nii.gz").read_bytes()
    monkeypatch.setattr(nib, "save", full_disk)
    for case in ("old", "new"):
        with pytest.raises(BadInput, match=rf"{case}_pred\.nii\.gz: cannot be written \(No space left on device\)"):
            saver(tmp_path)({"case": case, "pred": volume + 1})
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "old_pred.nii.gz"]
    assert (tmp_path / "old" / "old_pred.nii.gz").read_bytes() == before


def test_a_case_cannot_lead_out_of_the_folder(tmp_path, volume):
    for case in ("../up", "a/b", ".."):
        with pytest.raises(BadInput, match="this is not a file name"):
            saver(tmp_path / "output")({"case": case, "pred": volume})


def test_a_name_is_written_up_to_what_file_systems_take_and_then_refused(tmp_path, volume):
    longest = "ä" + "a" * (255 - 2 - len("_pred.nii.gz"))  # bytes; an uncertainty, of which there is none, would have more
    saver(tmp_path)({"case": longest, "pred": volume})
    assert (tmp_path / longest / f"{longest}_pred.nii.gz").is_file()
    with pytest.raises(BadInput, match="its results would have names of more than 255 bytes; rename the case"):
        saver(tmp_path)({"case": f"{longest}a", "pred": volume})


def test_every_key_needs_its_suffix(tmp_path):
    with pytest.raises(ValueError, match="2 keys need as many suffixes"):
        SaveVolumed(["a", "b"], tmp_path, suffixes=["a"])
