# SPDX-License-Identifier: Apache-2.0
"""A folder of brains and one other thing: what the command line makes of them once it knows what the weights have seen."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from scripts.__main__ import main
from scripts.bundle import bundle_root
from scripts.data.seen import seen_file

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPE, VOXEL = (20, 24, 20), np.diag([8.0, 8, 8, 1])
TRAINED = 30
TASK = ["--task", "translation", "--set", "trained_mm=8"]
TINY = ["--set", "size=tiny", "--set", "precision=float32"]


def draw_brain(rng):
    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    distance = sum((axis / rng.uniform(0.82, 0.88)) ** 2 for axis in grid)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), rng.uniform(0.7, 0.8))
    return np.where(distance < 1, 500 + 100 * texture / texture.std(), 0)


def save(voxels, path):
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), VOXEL), path)


@pytest.fixture
def trained(rng, weights, tmp_path):
    """The weights, beside which the command has noted what they saw."""
    (tmp_path / "data").mkdir()
    for number in range(TRAINED):
        brain = draw_brain(rng)
        for modality in ("t1ce", "flair"):
            save(brain, tmp_path / "data" / f"case{number:02d}_{modality}.nii")
    assert main(["seen", str(tmp_path / "data"), str(weights), *TASK[:2], "--split", "all"]) == 0
    return weights


@pytest.fixture
def folder(rng, tmp_path):
    """A brain that the weights saw, for of others one in a hundred is doubted, and noise."""
    (tmp_path / "in").mkdir()
    (tmp_path / "data" / "case07_t1ce.nii").rename(tmp_path / "in" / "brain_t1ce.nii")
    save(rng.normal(500, 50, SHAPE), tmp_path / "in" / "noise_t1ce.nii")
    return tmp_path / "in"


def restore(source, weights, *options):
    """What the command ends with, and the record that it leaves."""
    output = weights.parent / "out"
    code = main(["restore", str(source), "-o", str(output), "--weights", str(weights), *TINY, *options])
    return code, json.loads((output / "run.json").read_text())


def test_what_was_seen_is_the_same_file_when_it_is_made_again(trained, tmp_path, capsys):
    before = seen_file(trained).read_bytes()
    assert json.loads(before)["volumes"] == TRAINED
    assert main(["seen", str(tmp_path / "data"), str(trained), *TASK[:2], "--split", "all"]) == 0
    assert seen_file(trained).read_bytes() == before
    assert f"tiny.seen.json: {TRAINED} volumes" in capsys.readouterr().out


def test_another_thing_is_refused_and_does_not_stop_a_brain(trained, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        restore(folder, trained, *TASK)
    assert ended.value.code == 2
    record = json.loads((trained.parent / "out" / "run.json").read_text())
    assert list(record["cases"]) == ["brain"] and "doubts" not in record["cases"]["brain"]
    assert list(record["failures"]) == ["noise"]
    assert record["failures"]["noise"].startswith("t1ce is unlike all that the weights saw: ")
    assert "--force" in record["failures"]["noise"]
    assert not (trained.parent / "out" / "noise").exists()


def test_force_translates_it_and_keeps_the_doubt_in_log_record_and_report(trained, folder, caplog):
    code, record = restore(folder, trained, *TASK, "--force")
    assert code == 0 and not record["failures"]
    assert "doubts" not in record["cases"]["brain"]
    (line,) = record["cases"]["noise"]["doubts"]
    assert line.startswith("t1ce is unlike what the weights saw: ") and "; the weights saw " in line
    assert f"case noise: {line}" in record["warnings"]
    assert main(["report", str(trained.parent / "out")]) == 0
    assert line in (trained.parent / "out" / "noise" / "report.html").read_text()


def test_super_resolution_goes_on_with_the_doubt(trained, folder):
    save(nib.load(folder / "noise_t1ce.nii").get_fdata()[:10, :12, :10], folder / "noise_t1.nii")
    code, record = restore(folder / "noise_t1.nii", trained, "--set", "trained_mm=2")
    assert code == 0
    assert [line.partition(" is unlike ")[0] for line in record["cases"]["noise"]["doubts"]] == ["t1ce"]


def test_where_nobody_noted_it_nothing_is_said(trained, folder):
    seen_file(trained).unlink()
    code, record = restore(folder, trained, *TASK)
    assert code == 0 and all("doubts" not in case for case in record["cases"].values())


def test_a_damaged_note_ends_the_run_in_one_line(trained, folder, capsys):
    seen_file(trained).write_text("{}")
    assert main(["restore", str(folder), "-o", str(trained.parent / "out"), "--weights", str(trained), *TINY, *TASK]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "score-fusion seen" in said


def test_the_doctor_says_what_a_run_would(folder_of_noise, capsys):
    """Of the weights that ship, and their file."""
    assert seen_file(f"{bundle_root()}/models/translation.pt").is_file()
    assert main(["doctor", str(folder_of_noise), "--task", "translation"]) == 1
    assert "is unlike all that the weights saw: " in capsys.readouterr().err
    assert main(["doctor", str(folder_of_noise), "--task", "translation", "--force"]) == 0
    assert "is unlike what the weights saw: " in capsys.readouterr().out


@pytest.fixture
def folder_of_noise(rng, tmp_path):
    nib.save(
        nib.Nifti1Image(rng.normal(500, 50, (72, 92, 56)).astype(np.float32), np.diag([2.0, 2, 2, 1])), tmp_path / "a_t1ce.nii"
    )
    return tmp_path


def test_predictions_of_somebody_else_are_measured_whatever_ours_have_seen(trained, folder, tmp_path):
    (folder / "brain_t1ce.nii").unlink()
    noise = nib.load(folder / "noise_t1ce.nii").get_fdata()
    save(noise, folder / "noise_flair.nii")
    (tmp_path / "theirs" / "noise").mkdir(parents=True)
    save(noise, tmp_path / "theirs" / "noise" / "noise_pred.nii.gz")
    measured = ["--split", "all", "--predictions", str(tmp_path / "theirs")]
    output = ["-o", str(tmp_path / "measured"), "--weights", str(trained)]
    assert main(["evaluate", str(folder), *output, *TASK, *measured]) == 0
    assert list(json.loads((tmp_path / "measured" / "results.json").read_text())["cases"]) == ["noise"]
