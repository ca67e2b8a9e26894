# SPDX-License-Identifier: Apache-2.0
"""Which images of cine MR belong together, and in which order: several patients, shared instance UIDs, gaps and clocks."""

import shutil

import dicom_series
import numpy as np
import pytest
from cine_files import beating, write_classic, write_enhanced
from pydicom import dcmread

from scripts.data.cine import read_cine
from scripts.errors import BadInput


def refused(folder, fact):
    with pytest.raises(BadInput, match=fact) as caught:
        read_cine(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_images_of_one_instance_uid_are_all_used(kind, film, affine, tmp_path):
    """Copies still count once; the time of the last two frames stands in no tag that tells volumes apart."""
    tags = {"TriggerTime": None, "NominalInterval": None, "AcquisitionTime": lambda n: f"1015{0.0325 * (n % 10):09.6f}"}
    if kind == "classic":
        paths = write_classic(tmp_path / "in", film, affine, **tags)
        for n in (9, 18, 29):
            image = dcmread(paths[n])
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = dcmread(paths[8]).SOPInstanceUID
            image.save_as(paths[n])
    else:
        paths = [write_enhanced(tmp_path / "in" / "1.dcm", film, affine)]
    for n, path in enumerate(paths[-3:]):
        shutil.copy(path, tmp_path / "in" / f"copy{n}.dcm")
    cine = read_cine(tmp_path / "in")
    np.testing.assert_array_equal(cine.voxels, film)
    shared = ["series 1 t1 has images of one SOPInstanceUID at different places or times; all of them are used"]
    assert [*cine.doubts] == (shared if kind == "classic" else [])


def test_frames_that_no_slice_has_are_missed_by_their_numbers(film, affine, tmp_path):
    for between in (None, "8"):
        tags = {"InstanceNumber": lambda n: n + 1, "NominalInterval": 300, "SpacingBetweenSlices": between}
        paths = write_classic(tmp_path / "in", film, affine, **tags)
        for n in (9, 19, 29):
            paths[n].unlink()
        assert "may lack slices or frames: no image has number 10, 20 of 29" in read_cine(tmp_path / "in").doubts[0]


@pytest.mark.parametrize("whose", ["series", "study"])
def test_what_is_of_two_patients_is_refused(whose, film, affine, tmp_path):
    uids = {"StudyInstanceUID": "1.2.3", **({"SeriesInstanceUID": "1.2.3.4"} if whose == "series" else {})}
    write_classic(tmp_path / "in" / "a", film[:, :, :1], affine, **uids, PatientID="first")
    if whose == "series":
        write_classic(tmp_path / "in" / "b", film[:, :, 1:], affine, **uids, PatientID="second")
    else:
        dicom_series.write_series(tmp_path / "in" / "b", film[..., 0], affine, **uids, PatientID="second")
    refused(tmp_path / "in", r"series 1 t1 is of a study of 2 patients; separate them first")


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_every_other_slice_missing_is_refused(kind, affine, tmp_path, rng):
    stack = beating((24, 20, 5, 6), rng)
    if kind == "classic":
        paths = write_classic(tmp_path / "in", stack, affine, SpacingBetweenSlices="8", InstanceNumber=lambda n: n + 1)
        for n in [*range(6, 12), *range(18, 24)]:
            paths[n].unlink()
    else:
        path = write_enhanced(tmp_path / "in" / "1.dcm", stack, affine)
        image = dcmread(path)
        measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SpacingBetweenSlices = measures.SliceThickness
        kept = [n for n in range(30) if n % 5 % 2 == 0]
        for n, group in enumerate(image.PerFrameFunctionalGroupsSequence):
            group.FrameContentSequence[0].InStackPositionNumber = n % 5 + 1
        image.PixelData = image.pixel_array[kept].tobytes()
        image.PerFrameFunctionalGroupsSequence = [image.PerFrameFunctionalGroupsSequence[n] for n in kept]
        image.NumberOfFrames = len(kept)
        image.save_as(path)
    refused(tmp_path / "in", "lacks slices: its slices are 16 mm apart, but 8 mm by SpacingBetweenSlices, and no image has")


@pytest.mark.parametrize("lost", [None, "still"])
def test_a_trigger_time_that_few_images_lack_is_not_replaced_by_another_clock(lost, film, affine, tmp_path):
    """The other runs backwards."""
    backwards = {"AcquisitionTime": lambda n: f"1015{0.9 - 0.0325 * (n % 10):09.6f}"}
    paths = write_classic(tmp_path / "in", film, affine, **backwards)
    for path in paths[13:14] if lost is None else paths[10:20]:
        image = dcmread(path)
        image.TriggerTime = lost and "10"
        image.save_as(path)
    fact = "1 of 30 images lack TriggerTime" if lost is None else "TriggerTime stands still in slice 2"
    refused(tmp_path / "in", f"cannot be put in order: {fact}; export it again with all its tags")


def test_another_clock_that_few_images_have_is_told_of(film, affine, tmp_path):
    tags = {"TriggerTime": None, "NominalInterval": None, "TemporalPositionIdentifier": lambda n: n % 10 + 1}
    some = {"AcquisitionTime": lambda n: f"1015{0.0325 * (n % 10):09.6f}" if n else ""}
    write_classic(tmp_path / "in", film, affine, **tags, **some, TemporalResolution="32.5")
    cine = read_cine(tmp_path / "in")
    np.testing.assert_array_equal(cine.voxels, film)
    assert "is not ordered by AcquisitionTime: 1 of 30 images lack AcquisitionTime" in cine.doubts[0]
