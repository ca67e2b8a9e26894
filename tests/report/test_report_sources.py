# SPDX-License-Identifier: Apache-2.0
"""Which files a page shows: those that its run read, wherever they lie now, and truths that are given."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from heads import columns, pages, save

from scripts.data.dicom.find import find_series
from scripts.report import report
from scripts.report.volumes import load_case

sys.path.append(str(Path(__file__).parents[1] / "data" / "dicom"))
from dicom_series import write_series


def test_what_is_missing_or_on_another_grid_is_named_and_the_rest_is_shown(run, head):
    save(head[:20], run / "data" / "a_t1.nii.gz")
    (run / "data" / "b_t1.nii.gz").unlink()
    _, cases = pages(run)
    assert columns(cases["a"]) == columns(cases["b"]) == ["result"]
    assert "truth: its 20x28x32 voxels are not the 24x28x32 of the result" in cases["a"]
    assert "truth: no file of it was found" in cases["b"]


def test_a_restored_scan_lacks_no_truth(run, head):
    """Nobody has one, so nothing is said of it, unless a folder of truths was given."""
    content = json.loads((run / "out" / "results.json").read_text())
    content["sources"] = {"a": {"image": [str(run / "data" / "a_t1.nii.gz")]}}
    del content["mean"]
    (run / "out" / "results.json").unlink()
    (run / "out" / "run.json").write_text(json.dumps(content))
    page = report(str(run / "out")).parent / "a" / "report.html"
    assert "truth: no file of it was found" not in page.read_text()
    save(head, run / "truths" / "b_t1.nii.gz")
    report(str(run / "out"), truth_dir=str(run / "truths"), dataset_dir=str(run / "data"))
    assert "truth: no file of it was found" in page.read_text()


def test_the_record_tells_where_input_and_truth_lie(run):
    content = json.loads((run / "out" / "results.json").read_text())
    path = str(run / "data" / "a_t1.nii.gz")
    content["sources"] = {"a": {"image": [path], "label": path}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    page = report(str(run / "out"), max_cases=1).parent / "a" / "report.html"
    assert columns(page.read_text()) == ["input", "result", "truth", "error"]


def test_a_truth_that_is_given_joins_the_input_of_the_record(run):
    system = {"conditions": ["t1"], "target": "t1", "block": [1, 1, 1]}
    sources = {"a": {"image": [str(run / "data" / "a_t1.nii.gz")]}}
    (run / "out" / "run.json").write_text(json.dumps({"system": system, "sources": sources}))
    (run / "out" / "results.json").unlink()
    page = report(str(run / "out"), truth_dir=str(run / "data"), max_cases=1).parent / "a" / "report.html"
    assert columns(page.read_text()) == ["input", "result", "truth", "error"]


def test_a_dicom_series_of_the_record_is_read_again_without_being_looked_for(run, head):
    write_series(run / "dicom" / "t1", head.astype(np.uint16), np.eye(4), SeriesDescription="whatever a rule named")
    (series,) = find_series(run / "dicom").series
    content = json.loads((run / "out" / "results.json").read_text())
    content["sources"] = {"a": {"image": [series.content()], "label": series.content()}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    page = (report(str(run / "out"), max_cases=1).parent / "a" / "report.html").read_text()
    assert columns(page) == ["input", "result", "truth", "error"]


def test_a_study_that_moved_is_shown_by_the_series_that_the_run_read(run, head, monkeypatch):
    for name in ("t1 first", "t1 second"):  # nothing prefers one
        write_series(run / "dicom" / name, head.astype(np.uint16), np.eye(4), SeriesDescription=name)
    of_run = next(one for one in find_series(run / "dicom").series if one.description == "t1 second")
    content = json.loads((run / "out" / "results.json").read_text())
    content["sources"] = {"a": {"image": [of_run.content()], "label": of_run.content()}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    (run / "dicom").rename(run / "elsewhere")
    read = []

    def remembered(files, *given, **options):
        read.append(files)
        return load_case(files, *given, **options)

    monkeypatch.setattr("scripts.report.run.load_case", remembered)
    page = report(str(run / "out"), dataset_dir=str(run / "elsewhere"), max_cases=1).parent / "a" / "report.html"
    assert columns(page.read_text()) == ["input", "result", "truth", "error"]
    assert [(one.uid, "elsewhere" in one.files[0]) for one in (*read[0].inputs, read[0].truth)] == [(of_run.uid, True)] * 2


def test_another_file_of_a_name_of_the_record_is_not_shown(run, head):
    content = json.loads((run / "out" / "results.json").read_text())
    content["sources"] = {"a": {"image": [str(run / "gone" / "a_T1w.nii.gz")]}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    _, cases = pages(run, max_cases=1)
    assert "input" not in columns(cases["a"]) and "a_T1w.nii.gz: there is no such file" in cases["a"]


def test_truths_in_a_folder_of_their_own_may_have_other_names(run, head):
    content = json.loads((run / "out" / "results.json").read_text())
    path = str(run / "data" / "a_t1.nii.gz")
    content["sources"] = {"a": {"image": [path], "label": str(run / "gone" / "a_t1.nii.gz")}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    save(head, run / "truths" / "a_T1w.nii.gz")
    page = report(str(run / "out"), truth_dir=str(run / "truths"), max_cases=1).parent / "a" / "report.html"
    assert columns(page.read_text()) == ["input", "result", "truth", "error"]


def test_the_record_of_the_latest_run_counts(run):
    system = {"conditions": ["t1"], "target": "t1", "block": [4, 4, 4]}
    (run / "out" / "run.json").write_text(json.dumps({"system": system, "cases": {"a": {"seconds": 1.9}}}))
    os.utime(run / "out" / "results.json", (0, 0))
    group = report(str(run / "out"), max_cases=1)
    page = (group.parent / "a" / "report.html").read_text()
    assert "21.25" not in group.read_text() + page  # of the result that the inference replaced
    assert ">1.9<" in page and "not evaluated" in page and "scaled by the truth" not in page
