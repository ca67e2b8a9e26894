# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind of cases that were refused or doubted."""

import json
import os
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from scripts.__main__ import main
from scripts.inferers import backend
from scripts.running import RunRecord

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32"]


@pytest.fixture
def restore(weights, tmp_path):
    """A function that restores the folder `in` and returns the exit code and run.json."""

    def restore():
        with pytest.raises(SystemExit) as ended:
            main(["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(weights), *TINY])
        return ended.value.code, json.loads((tmp_path / "out" / "run.json").read_text())

    return restore


def save(image, *paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)


def test_a_refused_case_counts_in_the_summary_the_exit_code_and_the_record(restore, image, tmp_path, capsys):
    anat = tmp_path / "in" / "sub-01" / "anat"
    save(image, *(anat / f"sub-01_run-{run}_T1w.nii.gz" for run in (1, 2)), tmp_path / "in/sub-02/anat/sub-02_T1w.nii.gz")
    code, record = restore()
    assert code == 2
    said = capsys.readouterr().out
    assert "1 of 2 cases done" in said and "failed, as said above and in run.json: sub-01" in said
    assert said.count("differ in run (1, 2)") == 1
    assert list(record["cases"]) == ["sub-02"] and list(record["failures"]) == ["sub-01"]
    assert "differ in run (1, 2); choose by bids_filter" in record["failures"]["sub-01"]
    assert record["files"]["used"] == 1 and record["files"]["refused"][0]["count"] == 2


def test_when_every_case_is_refused_the_record_says_why(restore, image, tmp_path):
    save(image, tmp_path / "in" / "a_t1.nii", tmp_path / "in" / "a_t1.nii.gz")
    code, record = restore()
    assert code == 1
    assert record["cases"] == {} and record["failures"].keys() == {"a"}


def test_a_name_in_another_encoding_is_a_name(weights, image, tmp_path, capsys):
    name = os.fsdecode(b"M\xfcller")
    save(image, tmp_path / "in" / f"{name}_t1.nii.gz")
    assert main(["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(weights), *TINY]) == 0
    assert list(json.loads((tmp_path / "out" / "run.json").read_text())["cases"]) == [name]
    assert (tmp_path / "out" / name / f"{name}_pred.nii.gz").is_file()
    assert main(["report", str(tmp_path / "out")]) == 0
    assert "M\\udcfcller" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Traceback" not in capsys.readouterr().err


def test_doubts_stand_with_their_case_and_on_its_page(weights, image, tmp_path):
    nowhere = nib.Nifti1Image(image.get_fdata(dtype=np.float32), None)
    nowhere.set_qform(np.diag([4.0, 4, 4, 1]), 0)
    nowhere.set_sform(None, 0)
    save(nowhere, tmp_path / "in" / "odd_t1.nii.gz")
    save(image, tmp_path / "in" / "sound_t1.nii.gz")
    out = tmp_path / "out"
    assert main(["restore", str(tmp_path / "in"), "-o", str(out), "--weights", str(weights), *TINY]) == 0
    cases = json.loads((out / "run.json").read_text())["cases"]
    assert "doubts" not in cases["sound"]
    (line,) = cases["odd"]["doubts"]
    assert line.startswith("odd_t1.nii.gz: ") and "left and right are unknown" in line
    header = nib.load(out / "odd" / "odd_pred.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    assert main(["report", str(out)]) == 0
    assert "left and right are unknown" in (out / "odd" / "report.html").read_text()
    assert "<h2>Doubts</h2>" not in (out / "sound" / "report.html").read_text()


def test_numbers_that_differ_from_float32_are_a_doubt_in_log_record_and_report(weights, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backend, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(backend, "TOLERANCE", 1.0e-6)  # which no bfloat16 meets
    volumes = []
    for number, precision in enumerate(("auto", "float32")):
        out = tmp_path / str(number)
        options = ["--set", "size=tiny", "--set", f"precision={precision}", "--set", "backend=torch"]
        assert main(["restore", str(file), "-o", str(out), "--weights", str(weights), *options]) == 0
        volumes.append(nib.load(out / "anna" / "anna_pred.nii.gz").get_fdata())
    assert np.array_equal(*volumes)
    record, exact = (json.loads((tmp_path / name / "run.json").read_text()) for name in "01")
    (line,) = record["cases"]["anna"]["doubts"]
    assert line in record["warnings"] and line in capsys.readouterr().out and line.endswith(": computed in float32")
    assert record["numbers"] == "float32" and "doubts" not in exact["cases"]["anna"]
    assert main(["report", str(tmp_path / "0")]) == 0
    assert all(line in page.read_text() for page in (tmp_path / "0").rglob("report.html"))


def test_the_doctor_says_the_same(image, tmp_path, capsys):
    image.set_qform(image.affine, 0)
    image.set_sform(image.affine, 0)
    save(image, tmp_path / "a_t1.nii", tmp_path / "b_t1.nii", tmp_path / "b_t1.nii.gz")
    (tmp_path / "c.mnc").touch()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(tmp_path)])
    assert ended.value.code == 2
    out = capsys.readouterr().out
    assert "t1: its header (sform_code and qform_code 0) does not say where the head lies" in out
    assert "  cannot be used: case b: " in out and "1 of 2 cases can be used" in out
    assert "1 of a format that is not read (.mnc)" in out


@pytest.mark.parametrize(
    "words",
    [["restore", "in", "-o", "anna", "--set", "seed=-3"], ["restore", "-i", "in", "-oanna", "--set=seed=-3"]],
    ids=["apart", "joined"],
)
def test_options_of_a_command_are_recorded_by_their_names_and_without_their_values(words, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["score-fusion", *words])
    engine = SimpleNamespace(done=[], failures={}, data_loader=SimpleNamespace(dataset=[]))
    wanted = ["--input"] * ("-i" in words) + ["--output", "--set"]
    assert RunRecord(str(tmp_path / "run.json"), {}).content(engine)["options"] == wanted
