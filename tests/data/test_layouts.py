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
        ("p/pre_contrast_T1w", "t1"),
        ("Gd/Gd_t1", "t1"),  # called so
        ("CE-007_t1", "t1"),
        ("sub-gd_T1w", "t1"),
    ],
)
def test_a_name_with_an_agent_that_was_given_is_of_t1ce(name, modality, tmp_path, caplog):
    make_files(tmp_path, f"{name}.nii.gz", "other/other_t2.nii.gz")
    (case,) = find_cases(tmp_path, [modality])
    assert case["image"] == [str(tmp_path / f"{name}.nii.gz")]
    with pytest.raises(BadInput, match="none of 2 cases has"):
        find_cases(tmp_path, ["t1" if modality == "t1ce" else "t1ce"])
    assert "though their names" not in caplog.text or name in ("Gd/Gd_t1", "CE-007_t1")


@pytest.mark.parametrize("name", ["p/p_post_t1", "sub-1/anat/sub-1_acq-postGd_T1w"])
def test_a_t1_that_may_be_after_an_agent_is_warned_of(name, tmp_path, caplog):
    make_files(tmp_path, f"{name}.nii.gz")
    assert len(find_cases(tmp_path, ["t1"])) == 1
    assert f"taken as t1, though their names tell something else: {name}.nii.gz (t1ce)" in caplog.text
