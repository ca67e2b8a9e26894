# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import compress, random_affine, random_voxels, write_enhanced, write_series
from pydicom.data import get_testdata_file
from pydicom.uid import (
    CTImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from surroundings import SCANS, needs_scans

from scripts.data.dicom.choose import find_studies
from scripts.data.dicom.find import find_series

SHARED = SCANS / "dicom"


@pytest.fixture
def write(tmp_path, rng):
    """Writes a series of random voxels in `tmp_path/folder`; returns its files."""

    def write(folder="series", affine=None, shape=(12, 10, 8), **tags):
        return write_series(
            tmp_path / folder, random_voxels(rng, shape), random_affine(rng) if affine is None else affine, **tags
        )

    return write


def problems(folder):
    return [series.problem for series in find_series(folder).series]


def same_series():
    return {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}


def change(paths, **tags):
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


def test_series_are_found_at_any_depth_and_under_any_name(tmp_path, write):
    study = generate_uid()
    write("a/b/c/d/e/f/g", SeriesNumber=2, StudyInstanceUID=study)
    for path in write("other", SeriesNumber=1, StudyInstanceUID=study):
        path.rename(path.with_suffix(""))
    (tmp_path / "notes.txt").write_text("not DICOM")
    found = find_series(tmp_path)
    assert [series.number for series in found.series] == [1, 2]
    assert all(len(series.files) == 8 and not series.problem for series in found.series)
    assert not found.refused


def test_two_series_in_one_folder_are_kept_apart(tmp_path, write, rng):
    affine = random_affine(rng)
    for number in (1, 2):
        for path in write("both", affine, SeriesNumber=number):
            path.rename(path.with_name(f"{number}-{path.name}"))
    assert (
        sorted(Path(file).name[0] for series in find_series(tmp_path).series for file in series.files) == ["1"] * 8 + ["2"] * 8
    )


def test_copies_of_a_series_count_once(tmp_path, write):
    write("a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (series,) = find_series(tmp_path).series
    assert len(series.files) == 8 and not series.problem


def test_a_series_says_where_it_lies_and_how_it_was_taken(tmp_path, write):
    tags = {"InversionTime": "900", "ContrastBolusAgent": "gadolinium", "ScanningSequence": ["SE", "IR"]}
    write("sagittal", np.array([[0, 0, 5.0, 1], [0.9, 0, 0, 2], [0, -0.8, 0, 3], [0, 0, 0, 1]]), **tags)
    (series,) = find_series(tmp_path).series
    assert (series.plane, series.shape, str(series)) == ("sagittal", (12, 10, 8), "series 1 t1")
    np.testing.assert_allclose(series.spacing, (0.9, 0.8, 5))
    assert (series.echo_time, series.repetition_time, series.inversion_time) == (10, 500, 900)
    assert (series.contrast_agent, series.scanning_sequence) == ("gadolinium", ("SE", "IR"))


def test_echoes_in_one_series_are_separate_volumes(tmp_path, write, rng):
    affine, uids = random_affine(rng), same_series()
    for echo in ("12", "90"):
        write(echo, affine, EchoTime=echo, **uids)
    found = find_series(tmp_path).series
    assert [(series.part, series.echo_time, series.problem) for series in found] == [("echo 12", 12, ""), ("echo 90", 90, "")]
    assert all(Path(file).parent.name == f"{series.echo_time:g}" for series in found for file in series.files)


def test_repetitions_in_one_series_are_separate_volumes(tmp_path, write, rng):
    affine, uids = random_affine(rng), same_series()
    for number in (1, 2):
        write(str(number), affine, AcquisitionNumber=number, **uids)
    assert [series.part for series in find_series(tmp_path).series] == ["acquisition 1", "acquisition 2"]


def test_an_acquisition_number_that_changes_within_a_volume_does_not_split_it(tmp_path, write):
    write(AcquisitionNumber=lambda k: k + 1)
    (series,) = find_series(tmp_path).series
    assert series.shape[2] == 8 and not series.problem


def test_orientations_in_one_series_are_separate_volumes(tmp_path, write):
    uids = same_series()
    write("axial", np.diag([-1.0, -1, 2, 1]), **uids)
    write("sagittal", np.array([[0, 0, 2.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), **uids)
    assert sorted(series.plane for series in find_series(tmp_path).series) == ["axial", "sagittal"]


def test_a_missing_slice_is_named(tmp_path, write):
    write(skip=(4,))
    (problem,) = problems(tmp_path)
    assert problem == "lacks 1 slice: 0004.dcm and 0006.dcm are 6 mm apart, the others 3 mm; send the whole series again"


def test_a_missing_frame_of_an_enhanced_image_is_named(tmp_path, rng):
    write_enhanced(tmp_path / "one.dcm", random_voxels(rng), random_affine(rng), order=[0, 1, 2, 5, 6, 7])
    assert problems(tmp_path)[0].startswith("lacks 2 slices: frame 3 and frame 4 are 9 mm apart")


def test_a_duplicate_slice_is_named(tmp_path, write):
    first, *_ = write()
    shutil.copy(first, first.with_name("again.dcm"))
    change([first.with_name("again.dcm")], SOPInstanceUID=generate_uid())
    (problem,) = problems(tmp_path)
    assert "at the same place" in problem and "0001.dcm" in problem and "again.dcm" in problem


def test_uneven_spacing_is_named(tmp_path, write):
    *_, last = write(affine=np.diag([-1.0, -1, 3, 1]))
    change([last], ImagePositionPatient=[0, 0, 3 * 7 + 0.5])
    assert problems(tmp_path)[0].startswith("is unevenly spaced: 0007.dcm and 0008.dcm are 3.5 mm apart, the others 3 mm")


def test_a_tilted_gantry_is_named_with_its_angle(tmp_path, write):
    paths = write(affine=np.diag([-1.0, -1, 3, 1]))
    for k, path in enumerate(paths):
        change([path], ImagePositionPatient=[0, 3 * k * np.tan(np.radians(12)), 3 * k])
    assert problems(tmp_path) == ["is stacked 12 degrees off its slices' normal (gantry tilt); resample it first"]


def test_positions_of_two_decimals_are_even_enough(tmp_path, write):
    paths = write(affine=np.diag([-1.0, -1, 0.937, 1]))
    for k, path in enumerate(paths):
        change([path], ImagePositionPatient=[0, 0, round(0.937 * k, 2)])
    assert problems(tmp_path) == [""]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT", "SOPClassUID": CTImageStorage}, "is CT, not MR"),
        ({"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, "is a secondary capture"),
        ({"BurnedInAnnotation": "YES"}, "has text burned into its pixels"),
        ({"SyntheticData": "YES"}, "is synthetic already"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "is a mosaic"),
        ({"ImagePositionPatient": None}, "does not say where its slices lie"),
        ({"SamplesPerPixel": 3}, "is in colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_mr_scan_is_refused_with_its_reason(tmp_path, write, tags, reason):
    write(**tags)
    (problem,) = problems(tmp_path)
    assert problem.startswith(reason) and "; " in problem  # the fact and the way out


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("ImagePositionPatient", ["1", "2", "3", "4"]),
        ("ImagePositionPatient", ["1", "2"]),
        ("ImagePositionPatient", "1"),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "1"]),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "1", "0", "0"]),
        ("PixelSpacing", ["1", "1", "1"]),
        ("PixelSpacing", "1"),
    ],
)
@pytest.mark.parametrize("all_files", [True, False])
def test_a_place_of_too_many_or_too_few_numbers_is_named(tmp_path, write, keyword, values, all_files):
    """One such file spoils its series, and no other."""
    paths = write()
    write(folder="sound")
    change(paths if all_files else paths[3:4], **{keyword: values})
    found = {Path(series.files[0]).parent.name: series.problem for series in find_series(tmp_path).series}
    assert keyword in found["series"] or (not all_files and "0004.dcm" in found["series"])
    assert found["sound"] == ""


@pytest.mark.parametrize(
    ("tags", "exclusion"),
    [
        ({"SeriesDescription": "3-plane loc"}, "is a localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer"),
        ({"SeriesDescription": "ep2d_diff_ADC"}, "is a derived map or component (adc)"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "is a derived map or component (PHASE)"),
        ({"BodyPartExamined": "KNEE"}, "is of KNEE, not of the head"),
        ({"SeriesDescription": "location fallback t1"}, ""),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIXON", "FAT"]}, "is a derived map or component (FAT)"),
        ({"SeriesDescription": "T2 mapping"}, "is a derived map or component (mapping)"),
    ],
)
def test_what_is_hardly_meant_is_excluded(tmp_path, write, tags, exclusion):
    write(**tags)
    assert [series.exclusion for series in find_series(tmp_path).series] == [exclusion]


def test_a_study_of_two_patients_is_refused(tmp_path, write):
    study = generate_uid()
    write("a", StudyInstanceUID=study, PatientID="anna")
    write("b", StudyInstanceUID=study, PatientID="bert")
    assert problems(tmp_path) == ["is of a study of 2 patients; separate them first"] * 2


def test_a_series_of_two_patients_is_refused(tmp_path, write):
    write(PatientID=lambda k: "anna" if k < 4 else "bert")
    assert all("2 patients" in problem for problem in problems(tmp_path))


def test_a_file_cut_short_in_its_pixels_spoils_its_series(tmp_path, write):
    last = write()[-1]
    last.write_bytes(last.read_bytes()[:-20])
    assert problems(tmp_path) == ["needs 0008.dcm, which is cut short; copy it again"]


@pytest.mark.parametrize("syntax", ["explicit", "RLELossless"])
def test_wherever_the_last_file_is_cut_the_series_is_not_used_without_it(tmp_path, write, rng, syntax):
    *_, last = write()
    if syntax != "explicit":
        compress(last, syntax)
    whole = last.read_bytes()
    for size in [0, 128, 130, 132, *sorted(rng.integers(0, len(whole) - 8, 12))]:  # the last 8 bytes may be an empty end mark
        last.write_bytes(whole[:size])
        found = find_series(tmp_path)
        lines = [*found.refused, *(series.problem for series in found.series)]
        assert all(series.problem for series in found.series), f"cut at {size} of {len(whole)}"
        assert any("0008.dcm" in line for line in lines) and not any("\n" in line for line in lines)


@pytest.mark.parametrize("start", [b"MZ", b"\x7fELF", b"II*\0", b"#!/bin/sh\n"])
def test_a_hostile_preamble_is_refused(tmp_path, write, start):
    paths = write()
    paths[3].write_bytes(start + paths[3].read_bytes()[len(start) :])
    found = find_series(tmp_path)
    assert len(found.refused) == 1 and found.refused[0].startswith(f"{paths[3]}: begins like a")
    (series,) = found.series
    assert series.problem == f"may lack 0004.dcm{found.refused[0].removeprefix(str(paths[3]))}"  # with the same remedy


@pytest.mark.parametrize(
    ("modality", "sop_class", "fact"),
    [
        ("MR", RawDataStorage, "is Raw Data, not an MR image"),
        ("MR", "1.3.46.670589.11.0.0.12.1", "is of a private kind, not an MR image"),
        ("PR", GrayscaleSoftcopyPresentationStateStorage, "is PR, not MR"),
        ("MR", SecondaryCaptureImageStorage, "is a secondary capture"),
    ],
)
def test_an_object_of_another_kind_in_a_series_is_set_aside_and_told(tmp_path, write, modality, sop_class, fact):
    uids = same_series()
    write("images", **uids)
    write("other", shape=(12, 10, 1), Modality=modality, SOPClassUID=sop_class, InstanceNumber=99, **uids)
    scan, other = find_series(tmp_path).series
    assert (len(scan.files), scan.problem, str(other)) == (8, "", "series 1 t1 (1 of its files)")
    assert other.problem.startswith(fact)


def test_slices_of_one_instance_uid_at_different_places_are_no_copies(tmp_path, write):
    paths = write()
    for even, odd in zip(paths[::2], paths[1::2], strict=True):
        change([odd], SOPInstanceUID=pydicom.dcmread(even).SOPInstanceUID)
    shutil.copytree(tmp_path / "series", tmp_path / "copies")
    (series,) = find_series(tmp_path).series
    assert len(series.files) == 8 and not series.problem
    assert series.doubts == ("series 1 t1 has images of one SOPInstanceUID at different places; all of them are used",)


def test_of_two_copies_the_whole_one_counts(tmp_path, write):
    broken, *_ = write()
    shutil.copytree(tmp_path / "series", tmp_path / "whole")
    broken.write_bytes(broken.read_bytes()[:-20])
    assert problems(tmp_path) == [""]


@pytest.mark.parametrize("keyword", ["PixelSpacing", "Rows", "BitsAllocated"])
def test_a_tag_that_is_missing_everywhere_is_named_once(tmp_path, write, keyword):
    for path in write():
        dataset = pydicom.dcmread(path)
        del dataset[keyword]
        dataset.save_as(path)
    found = find_series(tmp_path)
    assert [series.problem for series in found.series] == [f"lacks {keyword}; export it again with all its tags"]
    assert not found.refused


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_identifiers_that_an_anonymiser_removed_are_stood_in_for(tmp_path, write, keyword):
    for path in write():
        dataset = pydicom.dcmread(path)
        del dataset[keyword]
        dataset.save_as(path)
    (series,) = find_series(tmp_path).series
    assert len(series.files) == 8 and not series.problem and series.study_uid and series.uid
    assert keyword == "SOPClassUID" or f"lacks {keyword}" in series.doubts[0]


def test_no_message_advises_to_delete_a_file(tmp_path, write):
    for number, content in enumerate([b"", b"MZ" + bytes(126) + b"DICM", bytes(128) + b"DICM" + b"\2\0"]):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "absent")
    refused = find_series(tmp_path).refused
    assert len(refused) == 4 and not any("delete" in line for line in refused)


def test_files_of_one_fault_are_told_in_one_line_with_their_number(tmp_path):
    for number in range(18):
        (tmp_path / f"{number:02d}.dcm").write_bytes(b"")
    (line,) = find_series(tmp_path).refused
    assert line.startswith(f"{tmp_path}/00.dcm (and 17 more there): is not DICOM")


def test_a_text_named_as_dicom_is_not_held_against_the_scan_beside_it(tmp_path, write):
    write()
    (tmp_path / "series" / "readme.dcm").write_text("not DICOM")
    found = find_series(tmp_path)
    assert [series.problem for series in found.series] == [""] and len(found.refused) == 1


def test_linked_folders_are_followed_and_never_in_a_circle(tmp_path, write):
    write("archive/s1")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "s1").symlink_to("../archive/s1")
    (tmp_path / "archive" / "s1" / "back").symlink_to("../../study")
    (series,) = find_series(tmp_path / "study").series
    assert len(series.files) == 8


def test_a_file_that_is_dicom_only_by_name_is_refused(tmp_path, write):
    write()
    (tmp_path / "broken.dcm").write_bytes(b"")
    (tmp_path / "nowhere.ima").symlink_to(tmp_path / "absent")
    found = find_series(tmp_path)
    assert [series.problem for series in found.series] == [""]  # it lies in another folder
    assert "broken.dcm: is not DICOM (0 bytes" in found.refused[0] and "nowhere.ima: cannot be opened" in found.refused[1]


def test_a_series_with_an_image_of_another_kind_is_refused(tmp_path, write):
    write(ImagePositionPatient=lambda k: None if k == 7 else [0, 0, 3 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    assert all(problem.startswith(("needs 0008.dcm, which does not say", "does not say")) for problem in problems(tmp_path))


def test_an_index_of_files_is_passed_over(tmp_path, write):
    write()
    shutil.copy(get_testdata_file("DICOMDIR"), tmp_path)
    found = find_series(tmp_path)
    assert len(found.series) == 1 and not found.refused


@needs_scans
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("gantrytilting/001", "is stacked 14 degrees off"),
        (
            "sliceincrement/001",
            "lacks 1 slice: IM-0001-0009-0001.dcm and IM-0001-0010-0001.dcm are 10 mm apart, the others 5 mm",
        ),
        ("sliceincrement/002", "lacks 1 slice: IM-0001-0003.dcm and IM-0001-0005.dcm"),
        ("notavolume/001", "at the same place"),
        ("slicecount/001", "is 256x256x2, but a volume needs at least 5"),
        ("sliceorientation/001", "but a volume needs at least 5"),
    ],
)
def test_scans_that_are_no_volume_are_refused_by_name(tmp_path, folder, reason):
    source = SHARED / "dicom2nifti" / "failing" / folder
    assert all(series.problem for series in find_series(source).series if series.modality == "CT")
    for path in source.glob("*.dcm"):  # half of them are CT and so refused already: here as if they were MR
        dataset = pydicom.dcmread(path)
        dataset.Modality, dataset.SOPClassUID = "MR", pydicom.uid.MRImageStorage
        dataset.save_as(tmp_path / path.name)
    studies, _ = find_studies(tmp_path)
    assert all(reason in series.problem for study in studies.values() for series in study)
