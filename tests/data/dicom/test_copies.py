# SPDX-License-Identifier: Apache-2.0
"""Series whose UIDs an anonymiser made the same stay apart, and copies of an image are still one."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import compress, random_voxels, write_series
from pydicom.uid import ImplicitVRLittleEndian, RawDataStorage

from scripts.data.dicom import copies
from scripts.data.dicom.find import find_series
from scripts.data.dicom.read import read_series

UID = "1.2.3"
ALL = {"StudyInstanceUID": UID, "SeriesInstanceUID": UID, "SOPInstanceUID": UID}
SERIES = {"StudyInstanceUID": "1.2.4", "SeriesInstanceUID": UID}
COUNT, SPACING = 6, 5.0


@pytest.fixture
def write(tmp_path, rng):
    """Writes axial slices, 5 mm apart from `start` (mm) on, in a folder of their own; returns their voxels."""

    def write(folder, voxels=None, start=0.0, **tags):
        voxels = random_voxels(rng, (12, 10, COUNT)) if voxels is None else voxels
        place = {"ImagePositionPatient": lambda k: [-20, -30, start + SPACING * k], "SliceThickness": "2"}
        write_series(tmp_path / folder, voxels, np.diag([-1.0, -1, SPACING, 1]), **{**place, **tags})
        return voxels

    return write


def found(folder):
    return find_series(folder).series


def change(folder, **tags):
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


# Series of one UID


@pytest.mark.parametrize("uids", [ALL, SERIES], ids=["all UIDs", "SeriesInstanceUID"])
@pytest.mark.parametrize("start", [0.0, SPACING / 2, COUNT * SPACING], ids=["same places", "in between", "on top"])
def test_two_contrasts_of_one_uid_are_two_series(tmp_path, write, rng, uids, start):
    first = write("a", SeriesNumber=3, SeriesDescription="T1", **uids)
    second = write("b", start=start, SeriesNumber=9, SeriesDescription="T1 +C", **uids)
    (tmp_path / "all").mkdir()
    for place, path in zip(rng.permutation(2 * COUNT), tmp_path.glob("[ab]/*"), strict=True):  # names that tell nothing
        path.rename(tmp_path / "all" / f"{place}.dcm")
    both = found(tmp_path / "all")
    assert [str(one) for one in both] == ["series 3 T1", "series 9 T1 +C"]
    for one, voxels in zip(both, (first, second), strict=True):
        np.testing.assert_array_equal(read_series(one), voxels)
    assert both[0].doubts[0] == "series 3 T1 has the SeriesInstanceUID of series 9 T1 +C, too; told apart by number"
    assert len({one.uid for one in both}) == 2
    assert [one.uid for one in both] == [one.uid for one in found(tmp_path / "all")]


def test_a_blank_slice_that_two_series_of_one_uid_have_is_of_both(tmp_path, write, rng):
    for number in (3, 9):
        voxels = random_voxels(rng, (12, 10, COUNT))
        voxels[:, :, 0] = 0
        write(str(number), voxels, SeriesNumber=number, **ALL)
    assert [(len(one.files), one.problem) for one in found(tmp_path)] == [(COUNT, "")] * 2


def test_where_series_have_no_number_their_descriptions_tell_them_apart(tmp_path, write):
    for name in ("T1", "T1 +C"):
        write(name, SeriesNumber=None, SeriesDescription=name, **SERIES)
    both = sorted(found(tmp_path), key=lambda one: one.description)
    assert [(one.description, one.problem) for one in both] == [("T1", ""), ("T1 +C", "")]
    assert all("told apart by description" in one.doubts[0] for one in both)


@pytest.mark.parametrize(("keyword", "word"), [("PatientID", "patient"), ("StudyInstanceUID", "study")])
def test_series_of_one_uid_in_two_studies_are_two(tmp_path, write, keyword, word):
    for name in ("1.2.7", "1.2.8"):
        write(name, **{"SeriesInstanceUID": UID, "StudyInstanceUID": name, keyword: name})
    both = found(tmp_path)
    assert [(len(one.files), one.problem) for one in both] == [(COUNT, "")] * 2 and len({one.uid for one in both}) == 2
    assert all(f"told apart by {word}" in one.doubts[0] for one in both)


def test_visits_that_share_their_uids_are_refused(tmp_path, write):
    for date in ("20200101", "20210101"):
        write(date, StudyDate=date, **ALL)
    assert [one.problem for one in found(tmp_path)] == ["has the UIDs of a series of another date; give each visit alone"] * 2


def test_a_study_of_two_dates_is_told(tmp_path, write):
    for date in ("20200101", "20210101"):
        write(date, StudyDate=date, StudyInstanceUID=UID)
    assert all("is of a study of 2 dates" in one.doubts[0] and not one.problem for one in found(tmp_path))


def test_two_patients_whom_no_header_tells_apart_are_refused(tmp_path, write):
    for name in ("anna", "bert"):
        write(name, PatientID="", PatientName="", **ALL)
    (one,) = found(tmp_path)
    assert len(one.files) == 2 * COUNT
    assert "of one SOPInstanceUID and place but different pixels, as of two series; give each alone" in one.problem


def test_two_series_of_one_uid_and_number_at_the_same_places_are_not_to_be_mended_by_hand(tmp_path, write):
    for name in ("a", "b"):
        write(name, **SERIES)
    (one,) = found(tmp_path)
    assert one.problem.endswith(f"at the same place, and {COUNT - 1} more such pairs; give each series alone")


def test_descriptions_that_differ_within_a_volume_are_told(tmp_path, write):
    write("a", SeriesDescription=lambda k: "T1" if k < 3 else "T1 +C")
    (one,) = found(tmp_path)
    assert not one.problem and "has images of 2 descriptions (T1, T1 +C)" in one.doubts[0]


def test_an_object_that_is_no_image_and_has_another_number_divides_nothing(tmp_path, write):
    write("images", SeriesNumber=3, **SERIES)
    write("raw", np.zeros((12, 10, 1), np.uint16), SOPClassUID=RawDataStorage, SeriesNumber=99, **SERIES)
    scan = next(one for one in found(tmp_path) if not one.problem)
    assert (len(scan.files), scan.uid, scan.doubts) == (COUNT, UID, ())


# One series of which tags differ from file to file


@pytest.mark.parametrize(
    ("tags", "doubt"),
    [
        ({"StudyDate": lambda k: f"2020010{k + 1}"}, "has images that differ in date and are used as one series"),
        ({"StudyDate": lambda k: f"2020010{1 + k // 3}"}, "differ in date"),
        ({"StudyInstanceUID": lambda k: f"1.2.{k + 1}"}, "differ in study"),
        ({"SeriesNumber": lambda k: 100 + k, "InstanceNumber": "1"}, "differ in number"),
        ({"SeriesNumber": lambda k: 100 + (k == 0), "InstanceNumber": "1"}, "differ in number"),
        ({"SeriesNumber": lambda k: 100 + (k > 2), "InstanceNumber": None}, "differ in number"),
        ({"SeriesNumber": lambda k: 100 + k % 2, "StudyDate": lambda k: f"2020010{k + 1}"}, "differ in date and number"),
        ({"SeriesNumber": None, "SeriesDescription": lambda k: f"T1 slice {k}"}, f"has images of {COUNT} descriptions"),
    ],
)
def test_a_whole_series_stays_one(tmp_path, write, tags, doubt):
    voxels = write("a", **SERIES, **tags) if "StudyInstanceUID" not in tags else write("a", SeriesInstanceUID=UID, **tags)
    (one,) = found(tmp_path)
    assert (one.uid, one.problem) == (UID, "") and sum(doubt in line for line in one.doubts) == 1
    np.testing.assert_array_equal(read_series(one), voxels)


def test_a_whole_series_that_shares_its_uid_with_another_stays_one(tmp_path, write):
    voxels = write("a", SeriesNumber=lambda k: 100 + k, **ALL)
    write("b", np.zeros((8, 6, 1), np.uint16), SeriesNumber=7, **ALL)  # a scout
    scan = next(one for one in found(tmp_path) if not one.problem)
    np.testing.assert_array_equal(read_series(scan), voxels)


def test_a_whole_series_of_two_dates_with_copies_of_some_slices_stays_one(tmp_path, write):
    voxels = write("a", **SERIES)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    change(tmp_path / "b", StudyDate="20210101")
    for path in [*sorted((tmp_path / "a").iterdir())[4:], *sorted((tmp_path / "b").iterdir())[:2]]:
        path.unlink()
    (one,) = found(tmp_path)
    np.testing.assert_array_equal(read_series(one), voxels)


def test_patients_of_whole_series_stay_two(tmp_path, write):
    for name, start in (("anna", 0.0), ("bert", COUNT * SPACING)):
        uids = {"StudyInstanceUID": lambda k, name=name: f"1.2.{len(name)}{ord(name[0])}{k}", "SeriesInstanceUID": UID}
        write(name, start=start, PatientID=name, **uids)
    assert [(one.patient_id, len(one.files), one.problem) for one in found(tmp_path)] == [
        ("anna", COUNT, ""),
        ("bert", COUNT, ""),
    ]


def test_a_whole_series_with_an_image_that_cannot_be_used_is_not_joined_without_it(tmp_path, write):
    write("a", SeriesNumber=lambda k: 100 + k, BurnedInAnnotation=lambda k: "YES" if k == 0 else "NO", **SERIES)
    assert all(one.problem for one in found(tmp_path))


# What is said of files


def test_files_of_one_name_in_two_folders_are_said_to_be_two(tmp_path, write):
    for name in ("anna", "bert"):
        write(name, PatientID="", PatientName="", **ALL)
    (one,) = found(tmp_path)
    assert one.problem.startswith("has 0001.dcm and another of that name of one SOPInstanceUID and place")
    assert not any("all of them are used" in doubt for doubt in one.doubts)
    for folder, tags in (("anna", {"PhotometricInterpretation": "MONOCHROME1"}), ("bert", {})):
        for path in (tmp_path / folder).iterdir():
            change(tmp_path / folder, **tags)
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = f"1.2.{path.stem.lstrip('0')}.{len(folder) + ord(folder[0])}"
            dataset.save_as(path)
    (one,) = found(tmp_path)
    assert one.problem.startswith("has 0001.dcm and another of that name at the same place")


# Copies


def implicit(path):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)


@pytest.mark.parametrize("uids", [ALL, {}], ids=["all UIDs alike", "good UIDs"])
@pytest.mark.parametrize(
    "resent",
    [
        lambda path: None,
        lambda path: compress(path, "RLELossless"),
        lambda path: compress(path, "JPEG2000Lossless"),
        lambda path: compress(path, "JPEGLSLossless"),
        implicit,
    ],
    ids=["as it was", "RLE", "JPEG 2000", "JPEG-LS", "implicit"],
)
def test_a_copy_counts_once_however_it_was_sent(tmp_path, write, resent, uids):
    voxels = write("a", **uids)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        resent(path)
    (one,) = found(tmp_path)
    assert not one.problem and {Path(file).parent.name for file in one.files} == {"a"}
    np.testing.assert_array_equal(read_series(one), voxels)


@pytest.mark.parametrize(
    "tags",
    [
        {"SeriesDescription": "T1 again"},
        {"SeriesNumber": 77},
        {"SeriesNumber": None},
        {"StudyDate": "20210101"},
        {"StudyInstanceUID": "1.2.9"},
        {"InstitutionName": "elsewhere"},
    ],
    ids=lambda tags: f"{tags}",
)
@pytest.mark.parametrize("part", [COUNT, 2], ids=["all", "some"])
def test_a_copy_with_another_header_counts_once(tmp_path, write, tags, part):
    write("b", **SERIES)
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    for path in sorted((tmp_path / "a").iterdir())[part:]:
        path.unlink()
    change(tmp_path / "a", **tags)
    (one,) = found(tmp_path)
    assert (len(one.files), one.problem) == (COUNT, "")
    assert not any("too; told apart" in doubt for doubt in one.doubts)


def test_a_copy_without_the_overlay_within_its_pixels_counts_once(tmp_path, write):
    voxels = write("a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    change(tmp_path / "a", BitsStored=12, HighBit=11)
    change(tmp_path / "b", BitsStored=12, HighBit=11)
    for path in (tmp_path / "b").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") | 0x8000).tobytes()
        dataset.save_as(path)
    (one,) = found(tmp_path)
    np.testing.assert_array_equal(read_series(one), voxels)


def test_pixels_are_read_of_images_alone_that_share_their_uid_and_place(tmp_path, write, monkeypatch):
    write("a", SeriesNumber=3, **SERIES)
    write("b", SeriesNumber=9, **SERIES)
    shutil.copytree(tmp_path / "a", tmp_path / "c")  # the same bytes, which tell it without a decoder
    monkeypatch.setattr(copies, "checksum_of_pixels", lambda path: pytest.fail(f"{path} was decoded"))
    monkeypatch.setattr(copies, "sha256", lambda path, whole=copies.sha256: whole(path) if path.parent.name != "b" else 1 / 0)
    assert len(found(tmp_path)) == 2
