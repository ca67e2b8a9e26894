# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
from test_cases import case_names, make_files, names_of

from scripts.bids_app.scans import find_scans
from scripts.data.cases import find_cases
from scripts.errors import BadInput

TWO = ("sub-01/anat/sub-01_acq-mprage_run-1_T1w.nii.gz", "sub-01/anat/sub-01_acq-mprage_run-02_T1w.nii.gz")


def test_the_refusal_names_what_differs_and_the_way_to_choose(tmp_path):
    make_files(tmp_path, *TWO)
    with pytest.raises(
        BadInput, match=r"are both t1; they differ in run \(02, 1\); choose by bids_filter, as .\"run\": \"02\"."
    ):
        find_cases(tmp_path, ["t1"])


@pytest.mark.parametrize("value", [2, "2", "02", [2, 3]])
@pytest.mark.parametrize("nested", [False, True])
def test_a_filter_chooses_one_of_two_runs(value, nested, tmp_path):
    make_files(tmp_path, *TWO, "sub-02/anat/sub-02_T1w.nii.gz")  # with one scan there is nothing to choose
    wanted = {"t1": {"run": value}} if nested else {"run": value}
    found = names_of(find_cases(tmp_path, ["t1"], bids_filter=wanted))
    assert found == [["sub-01_acq-mprage_run-02_T1w.nii.gz"], ["sub-02_T1w.nii.gz"]]


def test_null_asks_for_the_file_without_the_entity_and_long_names_are_known(tmp_path):
    make_files(tmp_path, "sub-01_acq-norm_T1w.nii.gz", "sub-01_T1w.nii.gz", "sub-01_space-MNI_T1w.nii.gz")
    found = find_cases(tmp_path, ["t1"], bids_filter={"acquisition": None, "space": None})
    assert names_of(found) == [["sub-01_T1w.nii.gz"]]


def test_a_case_whose_entity_is_another_one_is_left_out_by_name(tmp_path, caplog):
    make_files(tmp_path, "sub-01_acq-a_T1w.nii.gz", "sub-02_acq-b_T1w.nii.gz")
    caplog.set_level(logging.INFO)
    assert case_names(find_cases(tmp_path, ["t1"], bids_filter={"acq": "a"})) == ["sub-01"]
    assert "left out 1 of 2 cases: sub-02 (no t1)" in caplog.text


def test_what_is_no_filter_is_refused(tmp_path):
    make_files(tmp_path, *TWO)
    with pytest.raises(BadInput, match="bids_filter mprage: is no mapping of entities; write it as"):
        find_cases(tmp_path, ["t1"], bids_filter="mprage")


@pytest.mark.parametrize(("label", "modality"), [("gd", "t1ce"), ("Gadovist", "t1ce"), ("none", "t1"), ("pre", "t1")])
def test_a_contrast_entity_may_say_that_there_was_none(label, modality, tmp_path):
    make_files(tmp_path, f"sub-01/anat/sub-01_ce-{label}_T1w.nii.gz")
    assert names_of(find_cases(tmp_path, [modality])) == [[f"sub-01_ce-{label}_T1w.nii.gz"]]


def test_the_app_filters_scans_of_a_contrast_whatever_lies_between_them(tmp_path):
    make_files(tmp_path, *(f"sub-01/anat/sub-01_{name}_T1w.nii.gz" for name in ("acq-a", "ce-gd", "run-1")))
    found = find_scans(tmp_path, "T1w", bids_filter={"acq": "a"})
    assert [scan.name for scan in found] == ["sub-01_acq-a_T1w", "sub-01_ce-gd_T1w"]  # the only one of its contrast stays


def test_phase_images_and_masks_are_no_scans_unless_a_filter_asks_for_them(tmp_path):
    names = [f"sub-1/anat/sub-1_{entity}_T1w.nii.gz" for entity in ("part-mag", "part-phase", "desc-mask")]
    make_files(tmp_path, *names)
    cases = find_cases(tmp_path, ["t1"])
    assert cases[0]["image"] == [str(tmp_path / names[0])]
    left = {group["reason"] for group in cases.files["left_out"]}
    assert left == {"no scan by its name (part-phase)", "no scan by its name (desc-mask)"}
    for asked in ({"part": "phase"}, {"t1": {"part": "phase"}}):
        assert find_cases(tmp_path, ["t1"], bids_filter=asked)[0]["image"] == [str(tmp_path / names[1])]
    assert find_cases(tmp_path, ["t1"], bids_filter={"description": "mask"})[0]["image"] == [str(tmp_path / names[2])]


def test_the_app_leaves_out_phase_images_and_masks_with_a_line(tmp_path, caplog):
    names = [f"sub-1/anat/sub-1_{entity}_T1w.nii.gz" for entity in ("desc-mask", "part-mag", "part-phase")]
    make_files(tmp_path, *names, "sub-1/anat/sub-1_part-real_FLAIR.nii.gz", "sub-1/anat/sub-1_part-mag_FLAIR.nii.gz")
    assert [scan.name for scan in find_scans(tmp_path, "T1w")] == ["sub-1_part-mag_T1w"]
    told = "sub-1_desc-mask_T1w.nii.gz, sub-1_part-phase_T1w.nii.gz; name part or desc in --bids-filter for these"
    assert f"left out what is no scan by its name: {told}" in caplog.text and "FLAIR" not in caplog.text
    assert [scan.name for scan in find_scans(tmp_path, "T1w", bids_filter={"part": "phase"})] == ["sub-1_part-phase_T1w"]
