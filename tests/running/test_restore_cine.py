# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from scripts.data.cine import Cine, read_cine, write_cine
from scripts.data.cine.loops import name_of, write_loops
from scripts.data.doctor import doctor
from scripts.data.identifiers import FILE
from scripts.errors import BadInput
from scripts.networks import ScoreFusion
from scripts.networks.weights import write
from scripts.running import cine as restoring
from scripts.running.commands import restore

sys.path.extend(str(Path(__file__).parents[1] / "data" / folder) for folder in ("dicom", "cine"))
from cine_files import beating, write_classic

MEMBERS = ["x-y", "x-t", "y-t", "space-time"]
AFFINE = np.array([[0, 0, 5.0, 10], [-3.0, 0, 0, 20], [0, 3.0, 0, -30], [0, 0, 0, 1]])


@pytest.fixture
def source(tmp_path, rng):
    """A cine of two slices of six frames in large pixels, a file."""
    voxels = rng.uniform(0, 5, (8, 8, 2, 6)).astype(np.float32)
    voxels[2:6, 2:6] += 100
    cine = Cine(voxels, AFFINE, np.arange(6) * 0.04, True, Path("heart.nii.gz"))
    write_cine(cine, cine, tmp_path / "heart.nii.gz")
    return tmp_path / "heart.nii.gz"


@pytest.fixture
def weights(tmp_path, awaken):
    write(awaken(ScoreFusion(MEMBERS, size="tiny")).state_dict(), tmp_path / "tiny.pt")
    return str(tmp_path / "tiny.pt")


def test_a_cine_comes_back_fine_in_its_place_with_its_measurement(source, weights, tmp_path, capsys):
    out = tmp_path / "out"
    restore(str(source), str(out), task="cine_super_resolution", ckpt_path=weights, size="tiny", precision="float32")
    before, after = read_cine(source), read_cine(out / "heart_pred.nii.gz")
    assert after.voxels.shape == (32, 32, 2, 6)
    measured = after.voxels.reshape(8, 4, 8, 4, 2, 6).mean(axis=(1, 3))
    np.testing.assert_allclose(measured, before.voxels, rtol=0, atol=1e-3)  # of 100, averages of 16 in float32
    np.testing.assert_allclose(after.affine @ [1.5, 1.5, 1, 1], AFFINE @ [0, 0, 1, 1], atol=1e-4)
    np.testing.assert_allclose(after.frame_times, before.frame_times, atol=1e-6)
    record = json.loads((out / "run.json").read_text())
    assert sorted(record["cases"]) == ["heart-01", "heart-02"]
    assert (record["task"]["axes"], record["task"]["periodic"]) == (["x", "y", "t"], True)
    assert "heart_pred.nii.gz" in capsys.readouterr().out


def test_nothing_of_the_users_is_taken_for_loops_of_an_earlier_run(source, weights, tmp_path):
    place = tmp_path / "out" / "input" / "heart"
    place.mkdir(parents=True)
    mine = shutil.copy(source, place / source.name)
    (place / "notes.txt").write_text("mine")
    options = {"task": "cine_super_resolution", "ckpt_path": weights, "size": "tiny", "precision": "float32"}
    with pytest.raises(BadInput, match="lies where its loops are to be written"):
        restore(str(mine), str(tmp_path / "out"), **options)
    restore(str(source), str(tmp_path / "out"), **options)
    assert mine.exists() and (place / "notes.txt").read_text() == "mine"


def test_without_weights_nothing_is_written(source, tmp_path):
    with pytest.raises(BadInput, match=r"nowhere\.pt: no such weights file"):
        restore(str(source), str(tmp_path / "out"), task="cine_frames", ckpt_path=str(tmp_path / "nowhere.pt"))
    assert not (tmp_path / "out").exists()


def test_the_doctor_says_what_a_cine_is_read_as(source, capsys):
    doctor(source, ["cine_super_resolution"])
    said = capsys.readouterr().out
    assert "2 slices of 8x8 pixels, 6 frames" in said and "time closes in a circle" in said
    assert said.endswith("1 of 1 cases can be used\n")


@pytest.mark.parametrize("task", ["cine_super_resolution", "cine_frames"])
def test_the_doctor_refuses_what_restore_refuses(task, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((8, 8, 2), np.float32), np.eye(4)), still := tmp_path / "still.nii.gz")
    refusals = []
    for ask in (lambda: doctor(still, [task]), lambda: restore(str(still), str(tmp_path / "out"), task=task)):
        with pytest.raises(BadInput) as error:
            ask()
        refusals.append(str(error.value))
    assert refusals[0] == refusals[1] and "still.nii.gz" in refusals[0]


def test_an_empty_slice_comes_back_empty_with_a_doubt(source, weights, tmp_path, caplog):
    cine, out = read_cine(source), tmp_path / "out"
    cine.voxels[:, :, 1] = 7
    write_cine(cine, cine, source)
    given = {"ckpt_path": weights, "size": "tiny", "precision": "float32", "orientations": 1}
    restore(str(source), str(out), task="cine_super_resolution", **given)
    assert (read_cine(out / "heart_pred.nii.gz").voxels[:, :, 1] == 7).all()
    fact = "holds a single value in slice 2, which nothing is made of: it stays as it is"
    cases = json.loads((out / "run.json").read_text())["cases"]
    assert [*cases] == ["heart-01"] and f"heart-01_cine.nii.gz: {fact}" in cases["heart-01"]["doubts"]
    assert caplog.text.count(fact) == 1  # and not once more for every slice
    assert sorted(path.name for path in (out / "heart-01").glob("*.json")) == []  # no mark that could be lost


def test_bright_air_keeps_its_measurement(source, weights, tmp_path):
    cine, out = read_cine(source), tmp_path / "out"
    cine.voxels[cine.voxels < 50] = 255
    write_cine(cine, cine, source)
    given = {"ckpt_path": weights, "size": "tiny", "precision": "float32", "orientations": 1}
    restore(str(source), str(out), task="cine_super_resolution", **given)
    after = read_cine(out / "heart_pred.nii.gz").voxels
    np.testing.assert_allclose(after.reshape(8, 4, 8, 4, 2, 6).mean(axis=(1, 3)), cine.voxels, rtol=0, atol=1e-3)


def test_a_slice_that_fails_is_named_and_leaves_no_cine(source, weights, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def one_damaged(*arguments):
        paths = write_loops(*arguments)
        paths[1].write_bytes(paths[1].read_bytes()[:200])

    monkeypatch.setattr(restoring, "write_loops", one_damaged)
    (out / "heart_pred.nii.gz").mkdir(parents=True)  # whatever an earlier run left
    with pytest.raises(SystemExit) as end:
        restore(str(source), str(out), task="cine_super_resolution", ckpt_path=weights, size="tiny")
    assert end.value.code == 2
    assert "cannot be read as NIfTI" in json.loads((out / "run.json").read_text())["failures"]["heart-02"]
    assert not (out / "heart_pred.nii.gz").exists()


@pytest.mark.parametrize(("gated", "asked", "wanted"), [(True, None, True), (False, None, False), (True, False, False)])
def test_time_is_a_circle_where_the_cine_says_so_or_the_user_does(gated, asked, wanted, source, tmp_path, monkeypatch):
    """And frames of twice the number come back in the same time."""
    cine, told = read_cine(source), {}
    monkeypatch.setattr(restoring, "read_cine", lambda _: Cine(**{**vars(cine), "gated": gated}))

    def run(dataset_dir, periodic):
        told["periodic"] = periodic
        for file in sorted(Path(dataset_dir).glob("*.nii.gz")):
            name, image = file.name.removesuffix("_cine.nii.gz"), nib.load(file)
            (tmp_path / "out" / name).mkdir(parents=True)
            twice = np.asarray(image.dataobj).repeat(2, axis=-1)
            nib.save(nib.Nifti1Image(twice, image.affine), tmp_path / "out" / name / f"{name}_pred.nii.gz")

    made_by = SimpleNamespace(weights=__file__)  # some file that is there
    restoring.restore_cine(str(source), str(tmp_path / "out"), run, lambda: made_by, periodic=asked)
    assert told == {"periodic": wanted}
    after = read_cine(tmp_path / "out" / "heart_pred.nii.gz")
    assert np.array_equal(after.voxels, cine.voxels.repeat(2, axis=-1))
    np.testing.assert_allclose(after.frame_times, np.arange(12) * 0.02, atol=1e-6)


def restored_dicom(tmp_path, weights, rng, *, tags=None, **options):
    """The folder of results of a series whose folder and files are named after the patient."""
    of_patient = {"PatientID": "PAT-0815", "StudyDate": "20191224", "StudyInstanceUID": "1.2.3", "SeriesNumber": 7}
    source = tmp_path / "PAT-0815"
    write_classic(source, beating((8, 8, 1, 6), rng), AFFINE, **{**of_patient, **(tags or {})})
    for path in sorted(source.iterdir()):
        path.rename(path.with_name(f"PAT-0815_{path.name}"))
    out = tmp_path / "out"
    given = {"ckpt_path": weights, "size": "tiny", "precision": "float32"}
    restore(str(source), str(out), task="cine_super_resolution", **given, **options)
    return out


def test_results_from_dicom_are_named_by_a_pseudonym_and_say_nothing_of_the_patient_beside_it(weights, tmp_path, rng, caplog):
    out = restored_dicom(tmp_path, weights, rng, tags={"NominalInterval": None})  # a doubt
    assert json.loads((out / FILE).read_text())["study-001"]["patient_id"] == "PAT-0815"
    assert (out / "study-001-s7_pred" / "0001.dcm").is_file() and (out / "study-001-s7-01").is_dir()
    seen = [caplog.text, *(str(path.relative_to(out)) for path in out.rglob("*"))]
    seen += [path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".jsonl") and path.name != FILE]
    assert "study-001-s7: " in caplog.text
    for word in ("PAT-0815_", "20191224"):
        assert not [text for text in seen if word in text]


def test_another_loop_of_a_study_stands_beside_the_first(weights, tmp_path, rng):
    restored_dicom(tmp_path, weights, rng)
    shutil.rmtree(tmp_path / "PAT-0815")
    out = restored_dicom(tmp_path, weights, rng, tags={"SeriesNumber": 8, "SeriesInstanceUID": "1.2.3.8"})
    assert sorted(path.name for path in out.glob("*_pred")) == ["study-001-s7_pred", "study-001-s8_pred"]


def test_whoever_keeps_ids_reads_patient_and_date_in_the_names(weights, tmp_path, rng):
    out = restored_dicom(tmp_path, weights, rng, settings=["keep_ids=True"])
    assert (out / "PAT-0815-20191224-s7_pred").is_dir() and not (out / FILE).exists()


@pytest.mark.parametrize(("file", "name", "result"), [
    ("4D heart.nii.gz", "4D-heart", ".nii.gz"), ("loop.mp4", "loop", ".mp4"), ("Müller.avi", "M-ller", ".avi"),
])  # fmt: skip
def test_results_are_named_after_the_file_in_plain_letters(file, name, result):
    assert (name_of(Path(file)), restoring._ending(Path(file))) == (name, result)
