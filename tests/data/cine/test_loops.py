# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data import CropToContentd, LoadVolumesd, RestoreGridd, find_cases
from scripts.data.cine import Cine, write_cine
from scripts.data.cine.loops import claim, joined, loop_names, loops, write_loops
from scripts.data.read import read_source
from scripts.errors import BadInput
from scripts.measurement import BlockAverage

OBLIQUE = np.array([[-0.8, 0, -0.96, 123], [0.08, -0.69, -2.6, 137], [-0.13, -0.44, 4.1, 42], [0, 0, 0, 1.0]])


@pytest.fixture
def cine(rng):
    """Three slices of nine frames, bright in the middle, obliquely in space."""
    voxels = rng.uniform(0, 1, (20, 24, 3, 9)).astype(np.float32)
    voxels[6:14, 8:16] += 100
    return Cine(voxels, OBLIQUE, np.arange(9) * 0.0316, True, Path("heart.nii.gz"))


def test_every_slice_is_a_case_with_time_as_its_third_axis(cine, tmp_path):
    write_loops(cine, tmp_path, "heart")
    cases = find_cases(tmp_path, ["cine"], target="cine")
    assert [case["case"] for case in cases] == loop_names(cine, "heart") == ["heart-01", "heart-02", "heart-03"]
    for index, case in enumerate(cases):
        assert np.array_equal(np.asarray(nib.load(case["image"][0]).dataobj), cine.voxels[:, :, index])


def test_the_same_loops_are_the_same_files(cine, tmp_path):
    first, second = (write_loops(cine, tmp_path / name, "heart")[0].read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_name_is_of_one_cine_that_may_move_or_change(cine, tmp_path):
    claim(tmp_path, "heart", cine)
    claim(tmp_path, "heart", replace(cine, source=Path("elsewhere", "heart.nii.gz")))
    claim(tmp_path, "heart", replace(cine, source=Path("elsewhere", "heart.nii.gz"), voxels=cine.voxels[:, :, :2]))
    with pytest.raises(BadInput, match="heart: results of this name are of another cine; give another output"):
        claim(tmp_path, "heart", replace(cine, voxels=cine.voxels + 1, source=Path("he_art.nii.gz")))


@pytest.mark.parametrize("milliseconds", [5, 31.6, 900])
@pytest.mark.parametrize("block", [(4, 4, 1), (1, 1, 3)])
def test_loops_of_any_pace_are_read_on_their_own_axes(cine, block, milliseconds, tmp_path):
    """Frames are no thin slices and no thick voxels, whatever their time: the plan keeps the order of the axes."""
    paced = replace(cine, frame_times=np.arange(9) * milliseconds / 1000)
    path = str(write_loops(paced, tmp_path, "heart")[1])
    loaded = LoadVolumesd(degradation=BlockAverage(block, periodic=True))({"image": path, "case": "heart-02"})["image"]
    wanted = torch.from_numpy(cine.voxels[None, :, :, 1])
    for axis, factor in enumerate(block, start=1):
        wanted = wanted.repeat_interleave(factor, dim=axis)
    assert torch.equal(torch.as_tensor(loaded).as_subclass(torch.Tensor), wanted)


def test_results_lie_where_the_cine_lay_with_the_times_of_their_frames(cine, tmp_path):
    """Finer pixels within the old ones, and two frames in the time of one."""
    fine = replace(cine, voxels=cine.voxels.repeat(4, axis=0).repeat(4, axis=1).repeat(2, axis=3))
    result = joined(cine, write_loops(fine, tmp_path, "heart"))
    assert np.array_equal(result.voxels, fine.voxels)
    corners = [np.array([-0.5, -0.5, 1, 1]), np.array([19.5, 23.5, 1, 1])]
    ours = [np.array([-0.5, -0.5, 1, 1]), np.array([79.5, 95.5, 1, 1])]
    for before, after in zip(corners, ours, strict=True):
        np.testing.assert_allclose(result.affine @ after, OBLIQUE @ before, atol=1e-9)
    np.testing.assert_allclose(result.frame_times, np.arange(18) * 0.0158, atol=1e-9)


@pytest.mark.parametrize("frames", [6, 9])
def test_a_circle_is_neither_filled_up_nor_cropped(frames, tmp_path):
    """Whole black frames belong to it, and few frames are enough."""
    voxels = np.zeros((24, 24, 1, frames), dtype=np.float32)
    voxels[8:16, 8:16, :, 2] = 100
    path = str(write_loops(Cine(voxels, np.eye(4), np.arange(frames) * 0.03, True, Path("loop")), tmp_path, "loop")[0])
    degradation = BlockAverage((4, 4, 1), periodic=True)
    loaded = LoadVolumesd(degradation=degradation, simulate=True)({"image": path, "label": path, "case": "loop"})
    cropped = CropToContentd(degradation=degradation)(loaded)
    assert cropped["image"].shape[-1] == loaded["label"].shape[-1] == frames
    back = RestoreGridd()({**cropped, "pred": cropped["image"]})["pred"]
    assert tuple(back.shape) == (1, 24, 24, frames)


def test_frames_that_do_not_fill_a_circle_are_refused(cine, tmp_path):
    path = str(write_loops(cine, tmp_path, "heart")[0])
    with pytest.raises(BadInput, match="9 frames of a period are no multiple of 2; add --set periodic=False"):
        LoadVolumesd(degradation=BlockAverage((1, 1, 2), periodic=True), simulate=True)({"image": path, "case": "heart"})


def test_only_slices_to_train_on_are_varied_and_all_cases_have_a_split(cine, tmp_path):
    write_cine(cine, cine, tmp_path / "heart.nii.gz")
    loops(str(tmp_path / "heart.nii.gz"), str(tmp_path / "loops"), train=[1, 2], val=[3], variants=2)
    names = {
        split: [case["case"] for case in find_cases(tmp_path / "loops", ["cine"], split=split)] for split in ("train", "val")
    }
    assert names["val"] == ["heart-03"]
    assert names["train"] == ["heart-01", "heart-02", *(f"heart-v{number}-0{slice}" for number in (1, 2) for slice in (1, 2))]


@pytest.mark.parametrize(("given", "line"), [({"train": [4]}, "slice 4: there are 3"), ({"train": [1], "val": [1]}, "twice")])
def test_slices_that_are_not_there_or_in_both_splits_are_refused(given, line, cine, tmp_path):
    write_cine(cine, cine, tmp_path / "heart.nii.gz")
    with pytest.raises(BadInput, match=line):
        loops(str(tmp_path / "heart.nii.gz"), str(tmp_path / "loops"), **given)
    assert not (tmp_path / "loops").exists()


def test_bright_air_is_part_of_a_film_and_no_background_of_a_head(cine, tmp_path):
    cine.voxels[:] = np.where(cine.voxels > 50, cine.voxels, 255)
    path = write_loops(cine, tmp_path, "film")[0]
    scan = read_source(path)
    assert np.array_equal(scan.voxels, cine.voxels[:, :, 0]) and not scan.doubts
    (tmp_path / "film-01_cine.json").unlink()
    assert read_source(path).voxels[0, 0, 0] == 0  # as of a scan of a head


def test_what_is_doubted_of_a_cine_goes_with_each_of_its_loops(cine, tmp_path):
    paths = write_loops(cine, tmp_path, "heart", ["has no clock"])
    meta = LoadVolumesd(degradation=BlockAverage((4, 4, 1)))({"image": str(paths[2]), "case": "heart-03"})["image"].meta
    assert json.loads(meta["doubts"]) == ["heart-03_cine.nii.gz: has no clock"]


def test_a_slice_of_a_single_value_is_no_loop_and_stays_as_it_is(cine, tmp_path):
    cine.voxels[:, :, 1] = 7
    assert loop_names(cine, "heart") == ["heart-01", "heart-03"]
    fine = replace(cine, voxels=cine.voxels.repeat(4, axis=0).repeat(4, axis=1).repeat(2, axis=3))
    result = joined(cine, write_loops(fine, tmp_path, "heart"))
    assert np.array_equal(result.voxels, fine.voxels)
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == ["heart-01_cine.nii.gz", "heart-03_cine.nii.gz"]


@pytest.fixture
def hearts(cine, tmp_path):
    """A function: the path of a file of another heart."""

    def saved(name, level=0):
        other = replace(cine, voxels=cine.voxels + np.float32(level))
        write_cine(other, other, tmp_path / f"{name}.nii.gz")
        return str(tmp_path / f"{name}.nii.gz")

    return saved


def test_a_second_heart_leaves_the_splits_of_the_first(hearts, tmp_path):
    folder, table = str(tmp_path / "loops"), tmp_path / "loops" / "splits.csv"
    loops(hearts("a"), folder, train=[1], val=[3], variants=1)
    loops(hearts("b", 1), folder, train=[2])
    assert table.read_text().split() == ["case,split", "a-01,train", "a-03,val", "a-v1-01,train", "b-02,train"]
    loops(hearts("a"), folder, val=[2])
    assert table.read_text().split() == ["case,split", "b-02,train", "a-02,val"]


def test_no_variant_takes_the_name_of_another_heart(hearts, tmp_path):
    folder, table = str(tmp_path / "loops"), tmp_path / "loops" / "splits.csv"
    loops(hearts("a-v1", 1), folder, train=[1])
    with pytest.raises(BadInput, match="a-v1: results of this name are of another cine"):
        loops(hearts("a"), folder, train=[1], variants=1)
    loops(hearts("a"), folder, train=[2])
    assert table.read_text().split() == ["case,split", "a-v1-01,train", "a-02,train"]


def test_a_table_that_others_wrote_is_left_alone(hearts, tmp_path):
    (tmp_path / "loops").mkdir()
    (tmp_path / "loops" / "splits.csv").write_text("subject,split,age\nx,train,7\n")
    with pytest.raises(BadInput, match=r"splits\.csv: has other columns than case and split"):
        loops(hearts("a"), str(tmp_path / "loops"), train=[1])
    assert [path.name for path in (tmp_path / "loops").iterdir()] == ["splits.csv"]


def test_whoever_writes_loops_is_told_what_is_doubted_and_that_time_has_ends(cine, tmp_path, caplog, capsys):
    cine.voxels[..., 6:] += 300  # it does not close
    cine.voxels[..., 3] = cine.voxels[..., 2]
    write_cine(cine, cine, tmp_path / "heart.nii.gz")
    loops(str(tmp_path / "heart.nii.gz"), str(tmp_path / "loops"), train=[1])
    assert "heart.nii.gz: frame 4 is the same as the one before" in caplog.text
    assert f"next: score-fusion train {tmp_path / 'loops'} --set periodic=False" in capsys.readouterr().out
    doubts = read_source(tmp_path / "loops" / "heart-02_cine.nii.gz").doubts
    assert [line.partition(",")[0] for line in doubts[-2:]] == ["frame 4 is the same as the one before", "has two ends in time"]


def test_an_empty_slice_is_not_to_be_learned_from(cine, tmp_path):
    cine.voxels[:, :, 0] = 0
    write_cine(cine, cine, tmp_path / "heart.nii.gz")
    with pytest.raises(BadInput, match="slice 1: holds a single value, of which nothing can be learned; leave it out"):
        loops(str(tmp_path / "heart.nii.gz"), str(tmp_path / "loops"), train=[1], variants=2)
    assert not (tmp_path / "loops").exists()
