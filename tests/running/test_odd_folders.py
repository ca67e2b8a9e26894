# SPDX-License-Identifier: Apache-2.0
"""Folders in which a run meets what nobody thought of."""

import json
import tempfile
import zipfile

import nibabel as nib
import pytest

from scripts.__main__ import main
from scripts.running import case_evaluator

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32", "--set", "backend=torch"]


@pytest.fixture
def restore(weights):
    """A function (source, folder of results) -> exit code."""

    def restore(source, out):
        try:
            return main(["restore", str(source), "-o", str(out), "--weights", str(weights), *TINY])
        except SystemExit as ended:
            return ended.code

    return restore


def save(image, folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        nib.save(image, folder / name)


def test_results_beside_their_input_are_no_input_of_the_next_run(image, restore, tmp_path, capsys):
    folder = tmp_path / "both"
    save(image, folder, "anna_t1.nii.gz", "bert_t1.nii.gz")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert restore(folder, folder) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    capsys.readouterr()
    assert restore(folder, folder) == 0
    assert "2 of 2 cases done, 2 of them before" in capsys.readouterr().out
    assert [path.name for path in sorted(folder.glob("*/*"))] == ["anna_pred.nii.gz", "bert_pred.nii.gz"]


def test_an_input_that_vanishes_meanwhile_fails_alone(image, restore, tmp_path, monkeypatch):
    save(image, tmp_path / "in", "a_t1.nii.gz", "b_t1.nii.gz", "c_t1.nii.gz")
    hashed = case_evaluator.input_hash

    def lose(entry):
        (tmp_path / "in" / "b_t1.nii.gz").unlink(missing_ok=True)
        return hashed(entry)

    monkeypatch.setattr(case_evaluator, "input_hash", lose)  # as the first case is read
    assert restore(tmp_path / "in", tmp_path / "out") == 2
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(record["cases"]) == ["a", "c"]
    assert list(record["failures"]) == ["b"] and str(tmp_path / "in" / "b_t1.nii.gz") in record["failures"]["b"]
    assert "\n" not in record["failures"]["b"]


def test_names_of_250_letters_are_restored(image, restore, tmp_path):
    name = "a" * 243
    save(image, tmp_path / "in", f"{name[:240]}_t1.nii.gz", f"{name}_t1.nii")
    assert restore(tmp_path / "in", tmp_path / "out") == 0
    assert sorted(len(path.name) for path in (tmp_path / "out").glob("*/*")) == [252, 255]


def test_without_a_temporary_folder_a_zip_is_refused_in_one_line(image, restore, tmp_path, monkeypatch, capsys):
    save(image, tmp_path, "a_t1.nii.gz")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a_t1.nii.gz", "a_t1.nii.gz")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert restore(tmp_path / "a.zip", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no folder for what is temporary can be made (No such file or directory); set TMPDIR")


def test_a_temporary_folder_that_is_full_is_told_before_anything_is_unpacked(image, restore, tmp_path, monkeypatch, capsys):
    save(image, tmp_path, "a_t1.nii.gz")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "a_t1.nii.gz", "a_t1.nii.gz")
    monkeypatch.setattr("scripts.data.archive.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 7})())
    assert restore(tmp_path / "b.zip", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'b.zip'}: holds ") and "has 0.0 GB free; unzip it yourself" in line
