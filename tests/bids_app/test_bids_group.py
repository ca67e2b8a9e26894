# SPDX-License-Identifier: Apache-2.0
"""The group's page: every scan under one name everywhere, and none left out without a word."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from scripts.bids_app.derivatives import WORK
from scripts.bids_app.group import UNFINISHED, group
from scripts.errors import BadInput
from scripts.measurement import BlockAverage, Task
from scripts.report import report

FACTS = {"system": {}, "model": {}, "versions": {}, "failures": {}, "sources": {}}
SCANS = {"sub-01_ses-a_T1w": "sub-01_ses-a", "sub-02_T1w": "sub-02"}


@pytest.fixture
def out(tmp_path, rng):
    """What the level of participants leaves of two T1w and a FLAIR."""
    for scan, case in {**SCANS, "sub-01_ses-a_FLAIR": "sub-01_ses-a"}.items():
        folder = tmp_path / WORK / scan
        (folder / case).mkdir(parents=True)
        voxels = np.pad(rng.uniform(300, 900, (12, 12, 12)), 2).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / case / f"{case}_pred.nii.gz")
        contrast = "flair" if "FLAIR" in scan else "t1"
        task = Task([contrast], contrast, BlockAverage((4, 4, 4))).content()
        (folder / "run.json").write_text(json.dumps({"task": task, "cases": {case: {}}, **FACTS}))
    return tmp_path


def rated(page):
    """By what a rating is kept."""
    return set(re.findall(r'data-case="(.*?)" data-result="(.*?)"', page.read_text()))


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_rating_is_of_one_name_on_the_page_of_a_scan_and_of_the_group(out, by_hand):
    if by_hand:  # which calls the case as the run does
        report(str(out / WORK / "sub-01_ses-a_T1w"))
    group("", str(out))
    page = out / "docs" / "group_t1.html"
    links = dict(re.findall(r'<a href="(\.\./[^"]+)">([^<]+)</a>', page.read_text()))
    assert list(links.values()) == list(SCANS)
    pages = [page.parent / link for link in links]
    assert set.union(*map(rated, pages)) == rated(page) and {name for name, _ in rated(page)} == set(SCANS)
    for one in pages:
        (back,) = re.findall(r'<a href="([^"]+)">All cases', one.read_text())
        assert (one.parent / back).resolve() == page.resolve()


def test_a_page_that_stands_is_not_written_anew(out):
    group("", str(out))
    (page,) = (out / WORK / "sub-02_T1w").glob("*/report.html")
    before = page.stat().st_mtime_ns
    group("", str(out))
    assert page.stat().st_mtime_ns == before


@pytest.mark.parametrize("left", ["nothing", "the ledger", "a record of no case"])
def test_a_scan_whose_run_was_killed_is_named(out, left, capsys):
    record = out / WORK / "sub-02_T1w" / "run.json"
    record.with_name("ledger.jsonl").write_text('{"run": "begun", "force": false, "identity": "x"}\n')
    content = json.loads(record.read_text())
    record.unlink()
    if left == "a record of no case":
        record.write_text(json.dumps({**content, "cases": {}, "unfinished": True}))
    elif left == "nothing":
        record.with_name("ledger.jsonl").unlink()
    group("", str(out))
    assert f"sub-02_T1w has no page: {UNFINISHED}" in (out / "docs" / "group_t1.html").read_text()
    assert capsys.readouterr().out.count(f"sub-02_T1w: {UNFINISHED}") == 1
    assert "sub-02" not in (out / "docs" / "group_flair.html").read_text()


def test_where_none_was_finished_that_is_said(out):
    for record in out.glob(f"{WORK}/*_T1w/run.json"):
        record.unlink()
    with pytest.raises(BadInput, match="holds no such scan that was restored"):
        group("", str(out), modality="T1w")


def test_a_result_that_is_gone_is_named_and_the_others_are_shown(out):
    (out / WORK / "sub-02_T1w" / "sub-02" / "sub-02_pred.nii.gz").unlink()
    group("", str(out))
    page = (out / "docs" / "group_t1.html").read_text()
    assert "sub-02_T1w has no page: its result is gone" in page and page.count("All cases") == 0


def test_a_page_of_some_says_of_how_many(out, capsys):
    group("", str(out), participants=["02"], modality="T1w")
    page = out / "docs" / "group_t1.html"
    said = "of 1 of 2 scans: those that were chosen"
    assert f"1 case, {said}" in page.read_text() and f"{page}, {said}\n" in capsys.readouterr().out
    group("", str(out))
    assert "those that were chosen" not in page.read_text()
