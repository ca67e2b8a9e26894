# SPDX-License-Identifier: Apache-2.0
"""A word of its own stands in every text of a study; none gets out but where the result says whose it is.

`CANARY_SHARE=1` fills every tag that the standard knows, as `make soak` does, and not some of them at random.
"""

import base64
import gzip
import os
import re
import shutil
import tempfile
import traceback
import warnings

import canary
import dicom_series
import numpy as np
import pytest
from pydicom import dcmread

from scripts.__main__ import main
from scripts.data import find_cases
from scripts.data.dicom.read import read_series
from scripts.data.dicom.whitelist import DESCRIPTION, IF_THERE, PATIENT_AND_STUDY
from scripts.data.identifiers import FILE
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer
from scripts.networks import ScoreFusion
from scripts.networks.weights import write

SHARE = float(os.environ.get("CANARY_SHARE", "0.05"))
WORD = "CANARY00990099"  # 14 characters, as some numbers below
TOLD = {"SeriesDescription"}  # docs/dicom.md#privacy: how else would anybody know which series was taken?
WHITELIST = {*PATIENT_AND_STUDY, *IF_THERE, *DESCRIPTION}


def draw(rng):
    voxels = np.zeros((8, 8, 8), dtype=np.uint16)
    voxels[2:6, 2:6, 2:6] = rng.integers(300, 900, (4, 4, 4))
    return voxels, dicom_series.random_affine(rng, (4.0, 4.4, 5.0))


@pytest.fixture
def study(tmp_path, rng):
    """One that can be restored, a series of another part of the body, and a file that is none."""
    parts = {"a": ("t1 CANARY0008103E", "HEAD"), "b": ("t2 CANARY0008103E", canary.WORDS["CS"](0x00180015))}
    for number, (name, (description, body_part)) in enumerate(parts.items(), start=1):
        for path in dicom_series.write_series(tmp_path / "in" / name, *draw(rng), SeriesInstanceUID=f"1.2.3.{number}"):
            own = {"SeriesDescription": description, "BodyPartExamined": body_part, "SeriesNumber": number}
            canary.plant(path, share=SHARE, rng=rng, **own)
    (tmp_path / "in" / "broken.dcm").write_bytes(path.read_bytes()[:3000])
    return tmp_path / "in"


@pytest.fixture
def command(study, tmp_path, awaken, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    write(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "tiny.pt")
    tiny = ["--set", "size=tiny", "--set", "precision=float32", "--steps", "2", "--samples", "2"]
    given = ["--weights", str(tmp_path / "tiny.pt"), "--contrast", "t1ce", *tiny]  # the agent's name makes it one
    return ["restore", str(study), "-o", str(tmp_path / "out"), *given]


def on_terminal(run, capfd, caplog):
    """All that a function says: to the terminal, to the log, in warnings and in the traceback it ends with; and its result."""
    caplog.set_level(0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result, ended = run(), ""
        except (Exception, SystemExit):
            result, ended = None, traceback.format_exc()
    said = capfd.readouterr()
    return result, "\n".join([said.out, said.err, caplog.text, ended, *(str(one.message) for one in told)])


def content_of(path):
    """What a file holds, unpacked, with the pictures of a page."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    pictures = [base64.b64decode(match) for match in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data)]
    return b"\n".join([data, *pictures]).decode("latin1")


def test_no_text_of_a_study_gets_out_of_a_run(command, tmp_path, capfd, caplog):
    out = tmp_path / "out"
    code, said = on_terminal(lambda: main(command), capfd, caplog)
    assert code == 0, said
    assert "study-001" in said
    assert canary.found_in(said) <= TOLD
    record = (out / "run.json").read_text()
    assert str(tmp_path / "in") in said and str(tmp_path / "in") not in record
    code, said = on_terminal(lambda: main(["report", str(out)]), capfd, caplog)
    assert code == 0 and canary.found_in(said) <= TOLD
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {".html", ".json", ".jsonl", ".png", ".gz", ".dcm"} <= {path.suffix for path in files}
    assert not canary.found_in(" ".join(str(path.relative_to(tmp_path)) for path in files))
    results = [path for path in files if path.suffix == ".dcm"]
    for path in [path for path in files if path not in results and path.name != FILE]:
        assert canary.found_in(content_of(path)) <= TOLD, path
    for path in results:
        assert canary.found_in(content_of(path)) <= WHITELIST, path  # preamble and file meta, too
    for path in (results[0], out / "study-001" / "uncertainty.dcm"):
        elements = [element for element in dcmread(path).iterall() if element.VR != "SQ"]
        got = {(word, element.keyword) for element in elements for word in canary.found_in(str(element.value))}
        assert all(word == keyword for word, keyword in got), path
    assert {"PatientName", "PatientID"} <= {word for word, _ in got}  # or nothing was planted
    assert not [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]


def test_no_text_of_a_study_is_in_what_a_crash_says(command, tmp_path, monkeypatch, capfd, caplog):
    def crash(*_, **__):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(FusedScoreInferer, "__call__", crash)
    _, said = on_terminal(lambda: main(command), capfd, caplog)
    assert "a fault of ours" in said and "Traceback" in said
    assert canary.found_in(said) <= TOLD
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != FILE]
    assert not [path for path in left if canary.found_in(content_of(path)) - TOLD]


def replace(paths, before, after):
    for path in paths:
        content = path.read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after))


NUMBER, AS_WORD = b"DS\x0e\x0012345678901234", b"DS\x0e\x00" + WORD.encode()


@pytest.mark.parametrize(
    ("tags", "change"),
    [
        ({"InstanceNumber": "123456789012"}, (b"IS\x0c\x00123456789012", b"IS\x0c\x00" + WORD[:12].encode())),
        ({"AcquisitionNumber": "123456789012"}, (b"IS\x0c\x00123456789012", b"IS\x0c\x00" + WORD[:12].encode())),
        ({"RescaleSlope": "12345678901234"}, (NUMBER, AS_WORD)),
        ({"RepetitionTime": "12345678901234"}, (NUMBER, AS_WORD)),
        ({"SliceThickness": WORD}, None),
        ({"Modality": WORD}, None),
        ({"BodyPartExamined": WORD}, None),
        ({"ImageType": lambda k: ["ORIGINAL", "PRIMARY", f"{WORD}{k % 2}"]}, None),
        ({"RescaleType": lambda k: f"{WORD}{k % 2}"}, None),
        ({"PatientID": lambda k: f"{WORD}{k % 2}"}, None),
        ({"PatientID": None, "PatientName": WORD, "StudyDate": WORD}, None),
        ({"ContrastBolusAgent": WORD}, None),
        ({"PhotometricInterpretation": WORD}, None),
        ({"PixelSpacing": None, "ImageComments": WORD}, None),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, dict) else "",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes what it is told
def test_no_text_of_a_header_is_in_what_is_said_of_a_fault(tags, change, tmp_path, rng, capfd, caplog):
    for number in (1, 2) if {"ImageType", "AcquisitionNumber"} & tags.keys() else (1,):  # which tell two at one place apart
        own = {**tags, "SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "SeriesDescription": "t1"}
        given = {key: value for key, value in own.items() if key != "SliceThickness"}
        paths = dicom_series.write_series(tmp_path / "in" / str(number), *draw(np.random.default_rng(1)), **given)
        if change is not None:
            replace(paths, *change)
        elif "SliceThickness" in tags:
            replace(paths, b"DS\x0c\x005.0000000000", b"DS\x0c\x00" + WORD[:12].encode())

    def read():
        lines = []
        for contrast in ("t1", "t1ce"):
            try:
                cases = find_cases(tmp_path / "in", [contrast], identifiers=tmp_path / FILE, refused=True)
                lines += [str(case.get("error")) for case in cases] + [str(cases.files)]
                for series in (case["image"][0] for case in cases if case["image"]):
                    lines += [str(series), *series.doubts]
                    read_series(series)
            except BadInput as error:
                lines.append(str(error))
        return lines

    capfd.readouterr()
    caplog.clear()
    lines, said = on_terminal(read, capfd, caplog)
    assert "CANARY00" not in "\n".join([said, *lines]).upper()


@pytest.mark.parametrize(
    ("tags", "change"),
    [
        ({"PatientBirthDate": WORD, "StudyTime": WORD, "StudyInstanceUID": WORD, "FrameOfReferenceUID": WORD}, None),
        ({"PatientID": WORD * 6, "AccessionNumber": WORD * 3, "SOPInstanceUID": lambda k: f"{WORD}{k}"}, None),
        ({"LossyImageCompressionRatio": "12345678901234"}, (NUMBER, AS_WORD)),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, dict) else "",
)
@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes what it is told
def test_what_the_standard_does_not_bear_is_not_told_when_it_is_written_again(
    tags, change, study, command, rng, capfd, caplog
):  # fmt: skip
    shutil.rmtree(study)
    given = {"SeriesDescription": "t1", "ContrastBolusAgent": "Gadovist", **tags}
    paths = dicom_series.write_series(study, *draw(rng), **given)
    if change is not None:
        replace(paths, *change)
    capfd.readouterr()
    caplog.clear()
    _, said = on_terminal(lambda: main(command), capfd, caplog)
    assert "1 of 1 cases done" in said or "no DICOM can be written of it" in said
    assert "CANARY00" not in said.upper()
    records = [study.parent / "out" / name for name in ("run.json", "ledger.jsonl")]
    assert not [path for path in records if "CANARY00" in path.read_text()]
