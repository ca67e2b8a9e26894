# SPDX-License-Identifier: Apache-2.0
"""Every file below a folder ends as used, left out because, or refused because."""

import json
import zipfile
from pathlib import Path

import pytest
from test_cases import case_names, make_files

from scripts.data.cases import find_cases
from scripts.data.folder import files_below, refuse, summary
from scripts.data.volumes import read_volume
from scripts.errors import BadInput


def account(cases):
    """{reason: files} of what is not used, after counting that no file is lost."""
    groups = [*cases.files["left_out"], *cases.files["refused"]]
    assert all(group["count"] == len(group["files"]) for group in groups)
    return {group["reason"]: group["files"] for group in groups}


def test_every_file_ends_somewhere(tmp_path, caplog):
    make_files(tmp_path, "a/a_t1.nii.gz", "a/a_t2.nii.gz", "a/a_pred.nii.gz", "b/b_flair.nii.gz", "a/a_t1.json", "notes")
    make_files(
        tmp_path, "a/.DS_Store", "derivatives/x_t1.nii", "odd.nii.gz", "c.mnc", "d.nii.bz2", "1/2/3/4/5/6_t1.nii", "e.ima"
    )
    cases = find_cases(tmp_path, ["t1"])
    assert cases.files["used"] == 1
    assert account(cases) == {
        "t2, which is not asked for": ["a/a_t2.nii.gz"],
        "a result of ours": ["a/a_pred.nii.gz"],
        "flair, which is not asked for": ["b/b_flair.nii.gz"],
        "no volume (.json)": ["a/a_t1.json"],
        "no volume (no ending)": ["notes"],
        "hidden": ["a/.DS_Store"],
        "in derivatives": ["derivatives/x_t1.nii"],
        "with a name that tells no modality": ["odd.nii.gz"],
        "of a format that is not read (.mnc)": ["c.mnc"],
        "of a format that is not read (.nii.bz2)": ["d.nii.bz2"],
        "deeper than any layout": ["1/2/3/4/5/6_t1.nii"],
        "DICOM, of no series that is used": ["e.ima"],
    }
    assert "left out 2 files of a format that is not read: c.mnc, d.nii.bz2; convert them to NIfTI" in caplog.text
    assert "1 with a name that tells no modality (odd.nii.gz)" in summary(cases.files)


def test_of_many_volumes_whose_names_tell_nothing_the_first_are_named(tmp_path):
    make_files(tmp_path, "a_t1.nii", *(f"scan{number:02d}.nii" for number in range(30)))
    told = "30 with a name that tells no modality (scan00.nii, scan01.nii, scan02.nii, 27 more)"
    assert summary(find_cases(tmp_path, ["t1"]).files) == f"1 file used, 0 refused; left out: {told}"


def test_a_refused_case_is_an_entry_with_its_reason_and_its_files_are_refused(tmp_path):
    make_files(tmp_path, "a/a_t1.nii", "a/a_t1.nii.gz", "b/b_t1.nii")
    cases = find_cases(tmp_path, ["t1"], refused=True)
    assert case_names(cases) == ["a", "b"]
    assert cases[0]["image"] == [] and "are both t1" in cases[0]["error"]
    assert account(cases) == {cases[0]["error"]: ["a/a_t1.nii", "a/a_t1.nii.gz"]}
    assert case_names(find_cases(tmp_path, ["t1"])) == ["b"]
    assert find_cases(tmp_path / "a", ["t1"], refused=True)[0].keys() == {"case", "image", "error"}


def test_files_of_another_split_and_of_incomplete_cases_are_told_so(tmp_path):
    make_files(tmp_path, *(f"{case}_t1.nii" for case in "abcde"), "f_t2.nii")
    reasons = account(find_cases(tmp_path, ["t1"], split="val", train_fraction=0.5))
    assert reasons["of another split"] == ["a_t1.nii", "b_t1.nii", "c_t1.nii"]
    reasons = account(find_cases(tmp_path, ["t1"], target="t1"))
    assert reasons == {"t2, which is not asked for": ["f_t2.nii"]}
    make_files(tmp_path, "a_t2.nii")
    assert account(find_cases(tmp_path, ["t1", "t2"]))["of a case without t2"] == [f"{case}_t1.nii" for case in "bcde"]


def test_the_account_stays_with_a_part_of_the_cases_and_is_bounded(tmp_path):
    make_files(tmp_path, "a_t1.nii", *(f"{number}.txt" for number in range(30)), *(f"x.{number}" for number in range(60)))
    cases = find_cases(tmp_path, ["t1"])[:1]
    groups = cases.files["left_out"]
    assert groups[0]["count"] == 30 and len(groups[0]["files"]) == 20
    assert len(groups) == 51 and sum(group["count"] for group in groups) == 90
    assert summary(cases.files).startswith("1 file used, 0 refused; left out: 30 no volume (.txt), ")


def test_a_failed_case_moves_its_files_to_the_refused(tmp_path):
    make_files(tmp_path, "a_t1.nii", "b_t1.nii")
    content = refuse(find_cases(tmp_path, ["t1"]).files, {"a_t1.nii: every voxel is 7": [str(tmp_path / "a_t1.nii")], "no": []})
    assert content["used"] == 1
    assert content["refused"] == [{"reason": "a_t1.nii: every voxel is 7", "count": 1, "files": ["a_t1.nii"]}]


@pytest.mark.parametrize("name", ["error", "pred", "uncertainty"])
@pytest.mark.parametrize("place", ["{0}_t1", "{0}/t1", "{0}/{0}_t1", "sub-{0}/anat/sub-{0}_T1w", "sub-{0}_T1w"])
def test_a_subject_called_like_our_results_is_a_case(name, place, tmp_path):
    make_files(tmp_path, f"{place.format(name)}.nii")
    assert len(find_cases(tmp_path, ["t1"])) == 1


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    make_files(tmp_path, "archive/scan_7/t1.nii", "study/b/t1.nii")
    (tmp_path / "study" / "a").symlink_to("../archive/scan_7")
    (tmp_path / "archive" / "scan_7" / "up").symlink_to(tmp_path / "study")
    (tmp_path / "study" / "self").symlink_to(".")
    assert case_names(find_cases(tmp_path / "study", ["t1"])) == ["a", "b"]
    assert [str(path.relative_to(tmp_path / "study")) for path in files_below(tmp_path / "study")] == ["a/t1.nii", "b/t1.nii"]


def test_a_link_to_nothing_is_a_case_that_says_so(tmp_path):
    (tmp_path / "a_t1.nii.gz").symlink_to(".git/annex/objects/x")
    (entry,) = find_cases(tmp_path, ["t1"])
    with pytest.raises(BadInput, match=r"a_t1\.nii\.gz: is a link to \.git/annex/objects/x, which is not there; fetch it"):
        read_volume(entry["image"][0])


def test_a_clinical_folder_says_which_names_tell_a_modality_in_the_wrong_place(tmp_path):
    make_files(tmp_path, *(f"p/AX_{word}_8.nii.gz" for word in ("T1", "T1_POST", "T2")), "p/flair.nii.gz")
    names = r"p/AX_T1_8.nii.gz \(t1\), p/AX_T1_POST_8.nii.gz \(t1ce\), p/AX_T2_8.nii.gz \(t2\); rename them"
    with pytest.raises(BadInput, match=rf"seen: flair \(1\); in names that end in no modality: {names}"):
        find_cases(tmp_path, ["t1"])


def test_other_formats_alone_are_named(tmp_path):
    make_files(tmp_path, "a_t1.mnc")
    with pytest.raises(BadInput, match=r"1 files of formats that are not read, such as a_t1\.mnc"):
        find_cases(tmp_path, ["t1"])


@pytest.mark.parametrize(("limit", "value"), [("MOST_MEMBERS", 2), ("SMALL", 10)])
def test_a_zip_of_too_much_is_refused_before_it_is_unpacked(limit, value, tmp_path, monkeypatch):
    monkeypatch.setattr(f"scripts.data.archive.{limit}", value)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}_t1.nii", bytes(10**6))
    with pytest.raises(
        BadInput, match=r"a\.zip: holds 3 files of 0\.0 GB in .* MB, as no export of scans does; unzip it yourself"
    ):
        find_cases(tmp_path / "a.zip", ["t1"])


def test_a_zip_with_a_damaged_file_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a_t1.nii", bytes(range(256)) * 400)
    content = bytearray((tmp_path / "b.zip").read_bytes())
    content[60:80] = bytes(20)
    (tmp_path / "b.zip").write_bytes(bytes(content))
    with pytest.raises(BadInput, match=r"b\.zip: cannot be unzipped"):
        find_cases(tmp_path / "b.zip", ["t1"])


@pytest.mark.parametrize(
    ("names", "case"),
    [
        (["Kopf/head scan.nii.gz", "__MACOSX/Kopf/._head scan.nii.gz"], "head scan"),  # as a Mac packs a folder
        (["a/b/scan.nii.gz", "a/b/scan.json"], "scan"),
        (["anna/t1.nii.gz"], "anna"),
        (["sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz"], "sub-1_ses-2"),
        (["100307/T1w/T1w_acpc_dc_restore_brain.nii.gz"], "100307"),
    ],
)
def test_a_zip_of_one_folder_is_that_folder_unless_it_is_of_a_layout(names, case, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert case_names(find_cases(tmp_path / "a.zip", ["t1"])) == [case]


@pytest.mark.parametrize("inside", [True, False])
def test_the_paths_of_a_datalist_start_at_the_top_of_a_zip(inside, tmp_path):
    content = json.dumps({"training": [{"image": "scans/a17.nii.gz"}]})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("scans/a17.nii.gz", b"x")
        archive.writestr("scans/list.json", content)
    (tmp_path / "list.json").write_text(content)
    datalist = "scans/list.json" if inside else str(tmp_path / "list.json")
    (case,) = find_cases(tmp_path / "a.zip", ["t1"], datalist=datalist)
    assert case["case"] == "a17" and Path(case["image"][0]).is_file()
