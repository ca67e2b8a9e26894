# SPDX-License-Identifier: Apache-2.0
"""What names tell: whether there was an agent, and what is no scan."""

import logging
import re

import pytest
from test_cases import make_files

from scripts.data.cases import find_cases
from scripts.errors import BadInput


def test_masks_maps_and_localizers_among_nameless_scans_are_warned_of(tmp_path, caplog):
    odd = {"ADC": "adc", "FA": "fa", "SWI": "swi", "T1map": "t1map", "localizer": "localizer", "T2STAR": "swi"}
    odd |= {"anna_brain_mask": "mask", "ben-T1-roi": "roi"}
    scans = ["anna", "pilot_07", "sub-real", "sub_ben_8", "MPRAGE", "AX_T1_7", "restore_3"]
    make_files(tmp_path, *(f"{name}.nii.gz" for name in [*odd, *scans]))
    assert len(find_cases(tmp_path, ["t1"])) == len(odd) + len(scans)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    told = re.findall(r"([\w-]+)\.nii\.gz \((\w+)\)", line)
    assert dict(told) == odd
    caplog.clear()
    assert find_cases(tmp_path / "anna_brain_mask.nii.gz", ["t1"])
    assert "taken as t1, though its name says mask" in caplog.text


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("p/Gd_t1", "t1ce"),
        ("p/post_contrast_t1", "t1ce"),
        ("p/post-contrast.t1", "t1ce"),
        ("p/T1_CE", "t1ce"),
        ("p/T1_post", "t1ce"),
        ("p/p_t1w-post-gd", "t1ce"),
        ("p_T1_contrast", "t1ce"),
        ("p/p_no_contrast_t1", "t1"),
        ("p/T1_pre", "t1"),
        ("p/T1w_pre_contrast", "t1"),
        ("p/p-t1-no-gd", "t1"),
        ("p/pre_contrast_T1w", "t1"),
        ("Gd/Gd_t1", "t1"),  # called so
        ("CE-007_t1", "t1"),
        ("P12-KM/P12_KM_T1", "t1"),
        ("P12_post_KM_T1", "t1ce"),
        ("p_gd_t1", "t1ce"),
        ("sub-gd_T1w", "t1"),
    ],
)
def test_a_name_with_an_agent_that_was_given_is_of_t1ce(name, modality, tmp_path, caplog):
    make_files(tmp_path, f"{name}.nii.gz", "other/other_t2.nii.gz")
    (case,) = find_cases(tmp_path, [modality])
    assert case["image"] == [str(tmp_path / f"{name}.nii.gz")]
    with pytest.raises(BadInput, match="none of 2 cases has"):
        find_cases(tmp_path, ["t1" if modality == "t1ce" else "t1ce"])
    assert "though their names" not in caplog.text or name in ("Gd/Gd_t1", "CE-007_t1", "P12-KM/P12_KM_T1")


@pytest.mark.parametrize("name", ["p/p_post_t1", "sub-1/anat/sub-1_acq-postGd_T1w"])
def test_a_t1_that_may_be_after_an_agent_is_warned_of(name, tmp_path, caplog):
    make_files(tmp_path, f"{name}.nii.gz")
    assert len(find_cases(tmp_path, ["t1"])) == 1
    assert f"taken as t1, though their names tell something else: {name}.nii.gz (t1ce)" in caplog.text


@pytest.mark.parametrize(
    ("files", "asked", "taken"),
    [
        (["p/T1", "p/T1_pre"], "t1", ["p/T1"]),
        (["p/T1CE", "p/T1_post", "p/Gd_t1"], "t1ce", ["p/T1CE"]),
        (["p_t1", "p_T1_no_contrast"], "t1", ["p_t1"]),
        (["p/T1_contrast", "p/T1_no_contrast"], "t1", ["p/T1_no_contrast"]),
        (["p/p_T1_pre", "p/p_T1_post"], "pre", ["p/p_T1_pre"]),  # any other word stands for itself
        (["p_t1_contrast", "q_t1_contrast"], "contrast", ["p_t1_contrast", "q_t1_contrast"]),
        (["KM_t1", "P12_KM_T1", "P13_GD_T1", "q-ce-t1"], "t1", ["KM_t1", "P12_KM_T1", "P13_GD_T1", "q-ce-t1"]),
        (["a_T1_pre", "b_MPRAGE", "old/c_T1_pre"], "t1", ["a_T1_pre", "b_MPRAGE"]),  # nameless: all of the folder itself
        (["a_T1_pre", "a_T1_post", "b_MPRAGE"], "t1", ["a_T1_pre", "b_MPRAGE"]),
        (["a_T1_post", "b_MPRAGE"], "t1ce", ["a_T1_post", "b_MPRAGE"]),
        (["a_T1_post", "b_T1_post"], "late", ["a_T1_post", "b_T1_post"]),
    ],
)
def test_words_about_an_agent_take_no_file_from_plainer_names(files, asked, taken, tmp_path):
    make_files(tmp_path, *(f"{name}.nii.gz" for name in files))
    expected = [[str(tmp_path / f"{name}.nii.gz")] for name in taken]
    assert sorted(case["image"] for case in find_cases(tmp_path, [asked])) == expected


def test_a_datalist_names_its_cases_by_whole_names(tmp_path):
    make_files(tmp_path, "p_T1_pre.nii.gz", "p_T1_post.nii.gz")
    (tmp_path / "list.json").write_text('{"training": ["p_T1_pre.nii.gz", "p_T1_post.nii.gz"]}')
    assert [case["case"] for case in find_cases(tmp_path, ["t1"], datalist="list.json")] == ["p_T1_post", "p_T1_pre"]
