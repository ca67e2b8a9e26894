# SPDX-License-Identifier: Apache-2.0
import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data import LoadVolumesd
from scripts.errors import BadInput
from scripts.evaluation.predictions import ReadPredictiond, system_of
from scripts.measurement import BlockAverage

BLOCKS = BlockAverage((4, 4, 4))
AFFINE = np.array([[0, -1.0, 0, 17.5], [0, 0, -1.25, -8], [1.5, 0, 0, 3], [0, 0, 0, 1]])


@pytest.fixture
def truth(tmp_path, rng):
    """A truth on disk with odd sides, and the case as `evaluate.yaml` loads it."""
    voxels = rng.uniform(0, 900, (21, 18, 23)).astype(np.float32)
    voxels[:3], voxels[-3:], voxels[:, :3], voxels[:, -3:] = 0, 0, 0, 0
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "a_t1.nii.gz")
    path = str(tmp_path / "a_t1.nii.gz")
    load = LoadVolumesd(degradation=BLOCKS, simulate=True)
    return voxels, load({"case": "a", "image": [path], "label": path})


def leave(folder, voxels, case="a", suffix="pred", affine=AFFINE):
    (folder / case).mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), folder / case / f"{case}_{suffix}.nii.gz")


def read(folder, case, cases=({"case": "a"},), degradation=BLOCKS):
    return ReadPredictiond(str(folder), cases, degradation)(case)


def test_a_prediction_lands_on_the_padded_grid_of_its_truth(truth, tmp_path, rng):
    voxels, case = truth
    leave(tmp_path / "run", voxels + 1)
    (tmp_path / "run" / "results.json").write_text(json.dumps({"system": {"nfe": 3}, "cases": {"a": {"seconds": 7.5}}}))
    d = read(tmp_path / "run", case)
    height, width, depth = d["label"].meta["grid_shape"]
    inside = (slice(None), slice(height), slice(width), slice(depth))
    torch.testing.assert_close(d["pred"].as_tensor()[inside], d["label"].as_tensor()[inside] + 1)
    assert d["pred"].shape == d["label"].shape
    assert d["seconds"] == 7.5
    assert "uncertainty" not in d
    leave(tmp_path / "run", voxels * 0.1, suffix="uncertainty")
    assert read(tmp_path / "run", case)["uncertainty"].max() == pytest.approx(0.1 * voxels.max())
    assert system_of(str(tmp_path / "run")) == {"predictions": str(tmp_path / "run"), "nfe": 3}


def test_what_is_measured_is_not_written_over(truth, tmp_path):
    leave(tmp_path / "run", truth[0])
    with pytest.raises(BadInput, match="run: is measured and cannot be the output too"):
        ReadPredictiond(str(tmp_path / "run"), [], output_dir=f"{tmp_path}/other/../run")


def test_a_translation_may_come_in_units_of_its_own(truth, tmp_path):
    voxels, case = truth
    leave(tmp_path / "run", voxels / 900)
    assert read(tmp_path / "run", case, degradation=None)["pred"].max() == pytest.approx(voxels.max() / 900)


def test_without_a_record_only_the_folder_is_known(truth, tmp_path):
    voxels, case = truth
    leave(tmp_path / "run", voxels)
    assert read(tmp_path / "run", case)["seconds"] is None
    assert system_of(str(tmp_path / "run")) == {"predictions": str(tmp_path / "run")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda voxels: voxels[:-1], "case a: .*a_pred.nii.gz lies on another grid than the truth; resample it first"),
        (lambda voxels: voxels / 900, r"case a: the prediction spans .*, its condition .*; scale it to the units"),
        (
            lambda voxels: voxels + 1000,
            r"case a: the prediction spans 1000 to .*, its condition 0 to .*; scale it to the units",
        ),
        (lambda voxels: np.where(voxels > 500, np.nan, voxels), "a_pred.nii.gz: holds NaN or infinite voxels"),
    ],
)
def test_a_prediction_that_cannot_be_measured_is_named(change, message, truth, tmp_path):
    voxels, case = truth
    leave(tmp_path / "run", change(voxels))
    with pytest.raises(BadInput, match=message):
        read(tmp_path / "run", case)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda voxels: 2 * voxels, r"a gain of 0\.5 and an offset of [+-]\S+ of the truth's range raise its PSNR from \d\."),
        (lambda voxels: np.where(voxels > 0, voxels + 600, 0), r"a gain of 1 and an offset of -0\.667 of"),
        (lambda voxels: voxels, None),
        (lambda voxels: 1.02 * voxels, None),  # hardly seen, though a gain would make it perfect
        (lambda voxels: voxels[::-1].copy(), None),  # far from the truth, and no gain helps
    ],
    ids=["gain", "offset", "truth", "a little", "something else"],
)  # fmt: skip
def test_a_prediction_that_a_gain_and_an_offset_bring_to_the_truth_is_doubted(change, told, truth, tmp_path):
    voxels, case = truth
    leave(tmp_path / "run", change(voxels).astype(np.float32))
    doubts = read(tmp_path / "run", case)["doubts"]
    assert len(doubts) == (told is not None)
    if told:
        assert re.match(f"the prediction looks to be in other units than the truth: {told}", doubts[0])


def load(path, voxels, degradation=BLOCKS):
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    simulate = degradation is not None
    return LoadVolumesd(degradation=degradation, simulate=simulate)({"case": "a", "image": [str(path)], "label": str(path)})


def within_grid(volume, case):
    height, width, depth = case["label"].meta["grid_shape"]
    return volume.as_tensor()[0, :height, :width, :depth].numpy()


@pytest.mark.parametrize(("around", "of_prediction"), [(-1000, -1000), (-1000, 0), (0, -1000), (0, np.nan), (np.nan, np.nan)])
def test_a_prediction_has_the_background_of_its_truth_however_both_say_it(around, of_prediction, truth, tmp_path):
    voxels, _ = truth
    case = load(tmp_path / "b.nii.gz", np.where(voxels > 0, voxels, around).astype(np.float32))
    leave(tmp_path / "run", np.where(voxels > 0, voxels + 1, of_prediction).astype(np.float32))
    d = read(tmp_path / "run", case)
    assert set(np.unique(np.round(within_grid(d["pred"], d) - within_grid(d["label"], d), 3))) == {0, 1}


def test_bright_air_of_a_loop_stays_in_predictions_that_say_nothing_of_time(tmp_path, rng):
    voxels = np.full((16, 16, 20), 255, dtype=np.float32)
    voxels[4:12, 4:12] = rng.uniform(40, 110, (8, 8, 20))
    (tmp_path / "a_cine.json").write_text('{"axes": ["x", "y", "t"]}')
    case = load(tmp_path / "a_cine.nii.gz", voxels, BlockAverage((4, 4, 1)))
    leave(tmp_path / "run", np.where(voxels < 255, voxels + 1, 250))
    pred = within_grid(read(tmp_path / "run", case, degradation=BlockAverage((4, 4, 1)))["pred"], case)
    assert pred.max() == 250 and (pred == 250).sum() == (voxels == 255).sum()


def test_a_prediction_elsewhere_in_space_is_named(truth, tmp_path):
    voxels, case = truth
    larger = AFFINE @ np.diag([1.005, 1.005, 1.005, 1])  # each element by less than may be, the far corner by more
    for affine in (AFFINE + np.eye(4, k=3) * 0.1, larger):
        leave(tmp_path / "run", voxels, affine=affine)
        with pytest.raises(BadInput, match="another grid"):
            read(tmp_path / "run", case)


def test_missing_folders_and_predictions_are_named_and_strays_are_told(truth, tmp_path, caplog):
    voxels, case = truth
    with pytest.raises(BadInput, match="nowhere: there is no such folder"):
        read(tmp_path / "nowhere", case)
    leave(tmp_path / "run", voxels, case="zoe")
    with pytest.raises(BadInput, match=r"case a: there is no .*a_pred.nii.gz; infer it first"):
        read(tmp_path / "run", case)
    assert "1 predictions have no truth in this split, such as zoe" in caplog.text
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(BadInput, match=r"run\.json: cannot be read as JSON"):
        system_of(str(tmp_path / "run"))
