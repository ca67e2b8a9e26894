# SPDX-License-Identifier: Apache-2.0
"""Who a patient is stands in one file for its owner, and in no name, line or record beside it."""

import json
import logging
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.data import find_cases
from scripts.data.dicom import DicomSeries
from scripts.data.identifiers import FILE, Identifiers, anonymous, hide
from scripts.errors import BadInput
from scripts.running.record import RunRecord, record

sys.path.insert(0, str(Path(__file__).parent / "dicom"))
from dicom_series import random_affine, random_voxels, write_series

IDS = ("PAT-0815", "20191224", "PAT-4711", "20200102")
SERIES = DicomSeries(files=(), uid="1.2", study_uid="1", patient_id="PAT 0815", study_date="20191224")


@pytest.fixture
def study(tmp_path, rng):
    """A function that writes a study of one T1 below a folder that is named after the patient."""

    def study(patient, date, **tags):
        tags = {"PatientID": patient, "StudyDate": date, "StudyInstanceUID": f"1.2.{date}", **tags}
        return write_series(tmp_path / "in" / f"{patient}_{date}", random_voxels(rng), random_affine(rng), **tags)

    return study


def found(tmp_path, **options):
    cases = find_cases(tmp_path / "in", ["t1"], identifiers=tmp_path / "out" / FILE, **options)
    return {case["case"]: case["image"][0].patient_id for case in cases}


def test_patients_go_by_numbers_and_a_file_for_the_owner_says_whose_they_are(tmp_path, study, caplog):
    caplog.set_level(logging.INFO)
    study("PAT-4711", "20200102")
    (tmp_path / "in" / "PAT-4711_20200102.dcm").write_bytes(bytes(128) + b"DICMwhat")
    study("PAT-0815", "20191224", SeriesDescription="t2")
    assert found(tmp_path) == {"study-002": "PAT-4711"}
    assert "study-001" in caplog.text and not [word for word in IDS if word in caplog.text]
    file = tmp_path / "out" / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = {name: (entry["patient_id"], entry["study_date"]) for name, entry in json.loads(file.read_text()).items()}
    assert told == {"study-001": ("PAT-0815", "20191224"), "study-002": ("PAT-4711", "20200102")}


def test_a_number_stays_a_patients_whoever_comes_and_goes(tmp_path, study):
    study("PAT-4711", "20200102")
    assert found(tmp_path) == {"study-001": "PAT-4711"}
    study("PAT-0815", "20191224")
    assert found(tmp_path) == {"study-001": "PAT-4711", "study-002": "PAT-0815"}
    for path in (tmp_path / "in" / "PAT-4711_20200102").iterdir():
        path.unlink()
    assert found(tmp_path) == {"study-002": "PAT-0815"}


def test_splits_go_by_the_real_names(tmp_path, study):
    study("PAT-4711", "20200102")
    study("PAT-0815", "20191224")
    (tmp_path / "in" / "splits.csv").write_text("case,split\nPAT-4711_20200102,val\nPAT-0815_20191224,train\n")
    assert found(tmp_path, split="val") == {"study-002": "PAT-4711"}


def test_faults_are_told_without_the_patient_in_a_files_name(tmp_path, study):
    paths = study("PAT-0815", "20191224")
    for path in paths:
        path.rename(path.with_name(f"pat_0815.{path.name}"))
    (paths[3].with_name(f"pat_0815.{paths[3].name}")).unlink()
    with pytest.raises(BadInput, match=r"^case study-001: series 1 t1 lacks 1 slice: \*\*\*\.0003\.dcm and \*\*\*\.0005"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("PAT_0815_1.dcm", "***_1.dcm"),
        ("x20191224", "x20191224"),
        ("a-20191224.dcm", "a-***.dcm"),
        ("pat0815", "***"),
        ("7", "7"),
        ("lacks 042.dcm", "lacks 042.dcm"),
        ("lacks a slice: A7X_0003.dcm", "lacks a slice: ***_0003.dcm"),
        ("A7XB.dcm, XA7X", "A7XB.dcm, XA7X"),
        ("lacks 1 slice: 山田_0003.dcm", "lacks 1 slice: ***_0003.dcm"),
    ],
)
def test_only_whole_words_are_hidden(text, wanted):
    words = ("PAT 0815", "20191224", "7", "042", "a", "A7X", "山田", "--")
    assert hide(text, words) == wanted
    assert anonymous(replace(SERIES, problem=text), words).problem == wanted


def test_sources_are_recorded_for_the_owner_alone_and_found_again(tmp_path, study):
    study("PAT-0815", "20191224")
    cases = find_cases(tmp_path / "in", ["t1"], identifiers=tmp_path / "out" / FILE)
    engine = SimpleNamespace(
        data_loader=SimpleNamespace(dataset=SimpleNamespace(data=cases)), done=["study-001"], seconds={"study-001": 1.0},
        doubts={}, weights={}, failures={}, state=SimpleNamespace(device=torch.device("cpu")),
    )  # fmt: skip
    RunRecord(tmp_path / "out" / "run.json", {}).write(engine)
    assert not [word for word in IDS if word in (tmp_path / "out" / "run.json").read_text()]
    (source,) = record(tmp_path / "out")["sources"]["study-001"]["image"]
    assert DicomSeries.of(source) == cases[0]["image"][0]


def test_one_number_of_two_patients_is_not_compared(tmp_path):
    identifiers = Identifiers(tmp_path / "run" / FILE)
    identifiers.names({"real": [SERIES]})
    identifiers.check_same("study-001", "1")
    with pytest.raises(BadInput, match=r"^case study-001: is another study in .*run; run both with --keep-ids"):
        identifiers.check_same("study-001", "2")


@pytest.mark.parametrize("text", ["{", "[]", '{"study-001": 3}'])
def test_a_broken_list_is_named_and_kept(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadInput, match=f"{FILE}: .*put back the file that was there"):
        Identifiers(tmp_path / FILE)
    assert (tmp_path / FILE).read_text() == text
