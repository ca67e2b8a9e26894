# SPDX-License-Identifier: Apache-2.0
import csv
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from surroundings import SCANS, needs_scans

from scripts.data.cases import find_cases, first, subject_of
from scripts.data.splits import Split
from scripts.errors import BadInput

sys.path.append(str(Path(__file__).parent / "dicom"))
from dicom_series import write_series


def make_files(root, *names, content=b"x"):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names_of(entries, key="image"):
    return [[Path(path).name for path in ([e[key]] if key == "label" else e[key])] for e in entries]


def case_names(entries):
    return [entry["case"] for entry in entries]


def write_splits(root, rows, header="case,split"):
    (root / "splits.csv").write_text("\n".join([header, *rows]) + "\n")


def test_brats_2021_names_are_found_in_order_of_the_conditions(tmp_path):
    for case in ("BraTS2021_00005", "BraTS2021_00000"):
        make_files(tmp_path, *(f"{case}/{case}_{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair", "seg")))
    found = find_cases(tmp_path, ["t1ce", "t2"], target="flair")
    assert case_names(found) == ["BraTS2021_00000", "BraTS2021_00005"]
    assert names_of(found)[0] == ["BraTS2021_00000_t1ce.nii.gz", "BraTS2021_00000_t2.nii.gz"]
    assert Path(found[1]["label"]).name == "BraTS2021_00005_flair.nii.gz"
    assert all(Path(path).is_file() for path in found[0]["image"])


def test_brats_2023_names_are_found(tmp_path):
    case = "BraTS-GLI-00003-001"
    make_files(tmp_path, *(f"{case}/{case}-{m}.nii.gz" for m in ("t1n", "t1c", "t2w", "t2f", "seg")))
    (found,) = find_cases(tmp_path, ["t1", "t1ce", "t2", "flair"], target="seg")
    assert names_of([found])[0] == [f"{case}-{m}.nii.gz" for m in ("t1n", "t1c", "t2w", "t2f")]


def test_without_a_target_there_is_no_label(tmp_path):
    make_files(tmp_path, "a/a_t1.nii.gz")
    assert find_cases(tmp_path, ["t1"]) == [{"case": "a", "image": [str(tmp_path / "a/a_t1.nii.gz")]}]


def test_super_resolution_takes_one_file_as_condition_and_target(tmp_path):
    make_files(tmp_path, "a_t1.nii.gz", "b_t1.nii.gz")
    for found in find_cases(tmp_path, ["t1"], target="t1"):
        assert found["image"] == [found["label"]]


def test_a_mask_is_found_where_there_is_one_and_missed_by_name_where_not(tmp_path, caplog):
    make_files(tmp_path, "a_t1.nii.gz", "a_seg.nii.gz", "b_t1.nii.gz")
    with caplog.at_level(logging.WARNING):
        found = find_cases(tmp_path, ["t1"], target="t1", mask="seg")
    assert [Path(entry.get("mask", "none")).name for entry in found] == ["a_seg.nii.gz", "none"]
    assert "case b: has no seg" in caplog.text


def test_hcp_prefers_the_preprocessed_volume(tmp_path):
    raw = "100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz"
    make_files(tmp_path, raw, "100307/T1w/T1w_acpc_dc_restore_brain.nii.gz", "100307/T1w/aparc+aseg.nii.gz")
    make_files(tmp_path, "100307/T1w/T2w_acpc_dc_restore_brain.nii.gz", "100307/MNINonLinear/T1w.nii.gz")
    (found,) = find_cases(tmp_path, ["t1"], target="t2")
    assert found["case"] == "100307"
    assert Path(found["image"][0]).name == "T1w_acpc_dc_restore_brain.nii.gz"
    assert Path(found["label"]).name == "T2w_acpc_dc_restore_brain.nii.gz"


def test_of_two_unprocessed_hcp_runs_the_first_is_taken_with_a_warning(tmp_path, caplog):
    runs = [f"100307/unprocessed/3T/T1w_MPR{i}/100307_3T_T1w_MPR{i}.nii.gz" for i in (2, 1)]
    make_files(tmp_path, *runs, "100408/unprocessed/3T/T1w_MPR1/100408_3T_T1w_MPR1.nii.gz")
    found = find_cases(tmp_path, ["t1"])
    assert found[0]["image"] == [str(tmp_path / runs[1])]
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert "100307" in caplog.text
    assert "100408" not in caplog.text


def test_bids_sessions_contrast_and_derivatives(tmp_path):
    first = [f"sub-01/ses-a/anat/sub-01_ses-a_{name}.nii.gz" for name in ("acq-x_T1w", "acq-x_ce-gad_T1w", "FLAIR")]
    make_files(tmp_path, *first, "sub-02/anat/sub-02_T1w.nii", "sub-02/anat/sub-02_T1map.nii")
    make_files(tmp_path, "derivatives/x/sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "derivatives/sub-01_T1w.nii.gz")
    assert case_names(find_cases(tmp_path, ["t1"])) == ["sub-01_ses-a", "sub-02"]
    (found,) = find_cases(tmp_path, ["t1ce", "flair"])
    assert names_of([found])[0] == ["sub-01_ses-a_acq-x_ce-gad_T1w.nii.gz", "sub-01_ses-a_FLAIR.nii.gz"]


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("sub-01_t1.nii.gz", "sub-01"),
        ("case_t1.nii", "case"),
        ("case-7-T1w.nii.gz", "case-7"),
        ("sub-01_ses-2_acq-x_T1w.nii.gz", "sub-01_ses-2"),
        ("case0042/t1.nii.gz", "case0042"),
        ("case0042/anything_t1.nii.gz", "case0042"),
    ],
)
def test_simple_layouts_name_the_case(tmp_path, file, case):
    make_files(tmp_path, file)
    assert case_names(find_cases(tmp_path, ["t1"])) == [case]


def test_a_folder_that_is_one_case_is_named_after_itself(tmp_path):
    make_files(tmp_path / "patient", "t1ce.nii.gz", "flair.nii.gz")
    assert case_names(find_cases(tmp_path / "patient", ["t1ce"], target="flair")) == ["patient"]


def test_files_without_any_modality_are_cases_when_one_modality_is_asked_for(tmp_path):
    make_files(tmp_path, "beta.nii.gz", "alpha.nii", ".hidden.nii.gz", "alpha_pred.nii.gz", "notes.txt")
    assert case_names(find_cases(tmp_path, ["t1"], target="t1")) == ["alpha", "beta"]
    with pytest.raises(BadInput, match=r"no case with t1 and flair; found 2 volume files, such as alpha\.nii"):
        find_cases(tmp_path, ["t1"], target="flair")


def test_our_own_output_is_no_case(tmp_path):
    make_files(tmp_path, "a/a_t1.nii.gz", "a/a_pred.nii.gz", "a/a_uncertainty.nii.gz", "a/a_pred_t1.nii.gz")
    make_files(tmp_path, "output/a/a_pred.nii.gz", "output/a/a_t1.nii.gz", ".cache/b_t1.nii.gz")
    assert names_of(find_cases(tmp_path, ["t1"])) == [["a_t1.nii.gz"]]


def test_two_files_for_one_place_are_both_named(tmp_path):
    make_files(tmp_path, "a/a_t1.nii.gz", "a/a_t1w.nii", "a/a_t2.nii.gz")
    with pytest.raises(BadInput, match=r"case a: .*a_t1\.nii\.gz and .*a_t1w\.nii are both t1"):
        find_cases(tmp_path, ["t1"])
    assert len(find_cases(tmp_path, ["t2"])) == 1  # what was not asked for does not matter


def test_incomplete_cases_are_left_out_with_one_warning(tmp_path, caplog):
    make_files(tmp_path, "a/a_t1.nii.gz", "a/a_flair.nii.gz", "b/b_t1.nii.gz", "c/c_t1.nii.gz")
    assert case_names(find_cases(tmp_path, ["t1"], target="flair")) == ["a"]
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert "b (no flair)" in caplog.text
    assert "c (no flair)" in caplog.text


def test_when_all_cases_lack_a_modality_the_seen_ones_are_named(tmp_path):
    make_files(tmp_path, "a/a_t1.nii.gz", "b/b_t1.nii.gz", "b/b_seg.nii.gz")
    with pytest.raises(BadInput, match=r"none of 2 cases has t1 and flair; modalities seen: seg \(1\), t1 \(2\)"):
        find_cases(tmp_path, ["t1"], target="flair")


def test_a_clinical_folder_is_told_whole_where_a_modality_is_missing(tmp_path):
    names = ["AX_T1_SE", "AX_T1_SE_post", "COR_T2_7", "SAG_FLAIR", "scan_9"]
    make_files(tmp_path, *(f"{name}.nii.gz" for name in names))
    write_series(tmp_path / "dicom", np.ones((12, 10, 8), np.int16), np.eye(4), SeriesDescription="t1 mprage Gd")
    with pytest.raises(BadInput, match="none of 1 cases has t1ce; modalities seen: ") as error:
        find_cases(tmp_path, ["t1ce"])
    told = {"AX_T1_SE.nii.gz": "t1", "AX_T1_SE_post.nii.gz": "t1ce", "COR_T2_7.nii.gz": "t2", "scan_9.nii.gz": "unknown"}
    for name, seen in {"flair": 1, **told, "t1 mprage Gd": "t1ce"}.items():
        assert f"{name} ({seen})" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_tell_another_modality_than_they_are_taken_for_are_warned_of(tmp_path, caplog):
    make_files(tmp_path, "AX_FLAIR_8.nii.gz", "AX_T1_7.nii.gz", "scan_9.nii.gz")  # as dcm2niix names them
    assert len(find_cases(tmp_path, ["t1"])) == 3
    assert "taken as t1, though their names tell something else: AX_FLAIR_8.nii.gz (flair); move away" in caplog.text


@pytest.mark.parametrize(("name", "case"), [("a_t1.nii.gz", "a"), ("scan_9.nii.gz", "scan_9"), ("b-flair.NII.GZ", "b-flair")])
def test_a_single_file_is_a_case_whatever_it_is_called(name, case, tmp_path, caplog):
    make_files(tmp_path, name, "other_t1.nii.gz")
    assert find_cases(tmp_path / name, ["t1"]) == [{"case": case.removesuffix("-flair"), "image": [str(tmp_path / name)]}]
    assert ("taken as t1, though its name says flair" in caplog.text) == ("flair" in name)


def test_a_single_file_is_not_enough_for_two_conditions(tmp_path):
    make_files(tmp_path, "a_t1ce.nii.gz", "a_flair.nii.gz")
    with pytest.raises(BadInput, match=r"a_t1ce\.nii\.gz: none of 1 cases has flair and t1ce; modalities seen: t1ce \(1\)"):
        find_cases(tmp_path / "a_t1ce.nii.gz", ["flair", "t1ce"])


def test_a_file_that_holds_no_volume_is_named(tmp_path):
    (tmp_path / "a_t1.txt").write_text("no scan")
    with pytest.raises(BadInput, match=r"a_t1\.txt: no case with t1; found no volume or DICOM file"):
        find_cases(tmp_path / "a_t1.txt", ["t1"])


def test_a_missing_folder_an_empty_folder_and_an_unknown_split_are_named(tmp_path):
    with pytest.raises(BadInput, match="nowhere: there is no such folder"):
        find_cases(tmp_path / "nowhere", ["t1"])
    with pytest.raises(BadInput, match="found no volume or DICOM file"):
        find_cases(tmp_path, ["t1"])
    with pytest.raises(BadInput, match="split test: there is no such split; choose one of all, train, val"):
        find_cases(tmp_path, ["t1"], split="test")


@pytest.mark.parametrize(("name", "content"), [("a.dcm", b""), ("series/IM0001", bytes(128) + b"DICM")])
def test_a_dicom_file_that_cannot_be_read_is_named(tmp_path, name, content):
    make_files(tmp_path, name, content=content)
    make_files(tmp_path, "reference/converted.nii.gz")
    with pytest.raises(BadInput, match=f"{name}: .*; copy it again(, or leave it out)?$"):
        find_cases(tmp_path, ["t1"])


def test_brats_2021_splits_1000_to_251(tmp_path):
    make_files(tmp_path, *(f"BraTS2021_{i:05d}/BraTS2021_{i:05d}_t1.nii.gz" for i in range(1251)))
    train, val = (find_cases(tmp_path, ["t1"], split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1000, 251)
    assert case_names(train) < case_names(val)


@pytest.mark.parametrize("layout", ["BraTS-GLI-{0:05d}-{1:03d}/x-t1n.nii.gz", "sub-{0}/ses-{1}/anat/sub-{0}_ses-{1}_T1w.nii"])
def test_sessions_of_a_subject_never_straddle_the_split(tmp_path, layout):
    make_files(tmp_path, *(layout.format(subject, time) for subject in range(5) for time in range(subject % 3 + 1)))
    parts = [find_cases(tmp_path, ["t1"], split=s, train_fraction=0.6) for s in ("train", "val")]
    subjects = [{subject_of(case) for case in case_names(part)} for part in parts]
    assert [len(part) for part in subjects] == [3, 2]
    assert not subjects[0] & subjects[1]
    assert len(parts[0]) + len(parts[1]) == 9


def test_splits_do_not_depend_on_the_modalities_asked_for(tmp_path):
    make_files(tmp_path, *(f"{c}/{c}_t1.nii.gz" for c in "abcde"), *(f"{c}/{c}_t2.nii.gz" for c in "bde"))
    assert case_names(find_cases(tmp_path, ["t1"], split="val", train_fraction=0.6)) == ["d", "e"]
    assert case_names(find_cases(tmp_path, ["t2"], split="val", train_fraction=0.6)) == ["d", "e"]


def test_a_table_of_splits_wins_and_names_subjects_or_cases(tmp_path, caplog):
    make_files(tmp_path, *(f"sub-{s}/ses-1/anat/sub-{s}_ses-1_T1w.nii.gz" for s in "abc"))
    write_splits(tmp_path, ["sub-a,val", "sub-b_ses-1,train"])
    assert case_names(find_cases(tmp_path, ["t1"], split="val")) == ["sub-a_ses-1"]
    assert "sub-c_ses-1" in caplog.text
    assert case_names(find_cases(tmp_path, ["t1"], split="train")) == ["sub-b_ses-1"]
    assert len(find_cases(tmp_path, ["t1"])) == 3


def test_a_table_that_tears_a_subject_apart_is_refused(tmp_path):
    make_files(tmp_path, *(f"BraTS-GLI-00001-00{i}/x-t1n.nii.gz" for i in range(2)))
    write_splits(tmp_path, ["BraTS-GLI-00001-000,train", "BraTS-GLI-00001-001,val"])
    with pytest.raises(BadInput, match="subject BraTS-GLI-00001 is in two splits"):
        find_cases(tmp_path, ["t1"], split="train")


def test_a_table_without_the_column_or_without_the_split_is_refused(tmp_path):
    make_files(tmp_path, "a_t1.nii.gz")
    write_splits(tmp_path, ["a,train"], header="case,fold")
    with pytest.raises(BadInput, match=r"splits\.csv: has no column split"):
        find_cases(tmp_path, ["t1"], split="train")
    write_splits(tmp_path, ["a,train"])
    with pytest.raises(BadInput, match=r"no case of 1 is in split val; change splits\.csv"):
        find_cases(tmp_path, ["t1"], split="val")


def test_one_subject_alone_is_told_how_it_can_train(tmp_path):
    make_files(tmp_path, "a_t1.nii.gz")
    with pytest.raises(BadInput, match=r"split train: the first 80 % of the subjects train.*splits\.csv.*split all"):
        find_cases(tmp_path, ["t1"], split="train")
    assert case_names(find_cases(tmp_path, ["t1"], split="all")) == ["a"]


def write_datalist(root, **lists):
    (root / "list.json").write_text(json.dumps(lists))


def test_a_datalist_gives_cases_and_its_own_validation(tmp_path):
    make_files(tmp_path, "in/x.nii.gz", "in/y.nii.gz", "out/x.nii.gz", "out/y.nii.gz", "z_t1.nii.gz")
    entries = [{"image": f"in/{name}.nii.gz", "label": f"out/{name}.nii.gz"} for name in "xy"]
    write_datalist(tmp_path, training=entries[:1], validation=entries[1:], numTraining=1)
    for split, names in {"train": ["x"], "val": ["y"], "all": ["x", "y"]}.items():
        found = find_cases(tmp_path, ["t1"], target="t2", split=split, datalist="list.json")
        assert case_names(found) == names
    assert found[0]["label"] == str(tmp_path / "out/x.nii.gz")


def test_a_datalist_of_training_only_is_split_by_fraction(tmp_path):
    make_files(tmp_path, *(f"{name}/t1.nii.gz" for name in "abcde"))
    write_datalist(tmp_path, training=[{"image": [f"{name}/t1.nii.gz"]} for name in "edcba"])
    found = find_cases(tmp_path, ["t1"], target="t1", split="val", datalist=str(tmp_path / "list.json"))
    assert case_names(found) == ["e"]
    assert found[0]["image"] == [found[0]["label"]]


def test_beside_a_datalist_nothing_is_chosen_and_a_missing_mask_is_named(tmp_path, caplog):
    make_files(tmp_path, "a.nii.gz", "b.nii.gz")
    write_datalist(tmp_path, training=[{"image": "a.nii.gz", "mask": "a.nii.gz"}, {"image": "b.nii.gz"}])
    find_cases(tmp_path, ["t1"], datalist="list.json", mask="seg")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "case b: has no mask in the datalist, so nothing is measured in it"
    ]
    for name, rule in (("bids_filter", {"acq": "x"}), ("series_rules", {"t1": "x"})):
        with pytest.raises(BadInput, match=f"{name}: chooses among what a folder holds, but list.json lists the cases"):
            find_cases(tmp_path, ["t1"], datalist="list.json", **{name: rule})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": ["a.nii.gz", "a.nii.gz"], "label": "a.nii.gz"}, "should be one image for each condition, t1"),
        ({"image": "a.nii.gz"}, 'no "label" for the target t2'),
    ],
)
def test_a_faulty_entry_of_a_datalist_is_named(tmp_path, entry, message):
    make_files(tmp_path, "a.nii.gz")
    write_datalist(tmp_path, training=[entry])
    with pytest.raises(BadInput, match=message):
        find_cases(tmp_path, ["t1"], target="t2", datalist="list.json")


def test_a_datalist_with_a_case_twice_and_one_that_is_no_json_are_refused(tmp_path):
    make_files(tmp_path, "in/x.nii.gz", "out/x.nii.gz", "no.json")
    write_datalist(tmp_path, training=[{"image": "in/x.nii.gz"}, {"image": "out/x.nii.gz"}])
    with pytest.raises(BadInput, match="lists case x twice"):
        find_cases(tmp_path, ["t1"], datalist="list.json")
    with pytest.raises(BadInput, match=r"no\.json: is not a datalist"):
        find_cases(tmp_path, ["t1"], datalist="no.json")


@needs_scans
@pytest.mark.parametrize(("folder", "condition", "target"), [("t1", "t1", "t1"), ("glioma", "t1ce", "flair")])
def test_the_shared_scans_split_as_their_tables_say(folder, condition, target):
    rows = list(csv.DictReader((SCANS / folder / "splits.csv").open()))
    for split in ("train", "val"):
        expected = sorted(next(iter(row.values())) for row in rows if row["split"] == split)
        assert case_names(find_cases(SCANS / folder, [condition], target=target, split=split)) == expected


def test_dicom_that_volume_files_push_aside_is_said_to_be_unused(tmp_path, caplog):
    """A study with a converted copy beside it: who waits for a series would wait in vain."""
    find_cases(make_files(tmp_path, "a_t1.nii.gz", "notes.txt"), ["t1"])
    assert "DICOM" not in caplog.text
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(b"x")
    find_cases(tmp_path, ["t1"])
    assert "volume files form cases, which leaves 3 DICOM files beside them unused; for DICOM give a folder" in caplog.text


def test_a_number_of_cases_that_is_none_is_refused_and_does_not_drop_the_last():
    assert first([1, 2, 3], None) == [1, 2, 3] and first([1, 2, 3], 2) == [1, 2]
    for count in (0, -1):
        with pytest.raises(BadInput, match=f"max_cases {count}: give 1 and more"):
            first([1, 2, 3], count)


def test_studies_of_a_patient_never_straddle_the_split(tmp_path):
    """As of DICOM, whose cases are called after patient and date."""
    patients = {f"P{number}_{date}": f"P{number}" for number in range(5) for date in ("2024", "2025", "2026")}
    train, val = (Split(tmp_path, name, 0.7).take(patients, patients) for name in ("train", "val"))
    assert (len(train), len(val)) == (9, 6) and not {patients[case] for case in train} & {patients[case] for case in val}
    rows = ["case,split", *(f"{case},{'val' if case.endswith('2026') else 'train'}" for case in patients)]
    (tmp_path / "splits.csv").write_text("\n".join(rows))
    with pytest.raises(BadInput, match="subject P0 is in two splits"):
        Split(tmp_path, "val", 0.7).take(patients, patients)
