# SPDX-License-Identifier: Apache-2.0
"""Films in DICOM: ultrasound that keeps its colours, times and calibration; fluoroscopy; what is refused."""

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import canary
import numpy as np
import pytest
from cine_files import beating, canary_share, finer, provenance, write_film
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from surroundings import needs_dciodvfy

from scripts.data.cine import read_cine, write_cine
from scripts.data.dicom.whitelist import DESCRIPTION, IF_THERE, PATIENT_AND_STUDY
from scripts.errors import BadInput


@pytest.fixture
def frames(rng):
    """(frames, rows, columns) of uint8."""
    return (beating((24, 20, 1, 9), rng)[:, :, 0].T // 5).astype(np.uint8)


def in_colour(frames):
    return np.stack([frames, frames // 2 + 30, 255 - frames], axis=-1)


def written(cine, like, folder):
    write_cine(cine, like, folder / "out", provenance=provenance(folder))
    return dcmread(folder / "out" / "0001.dcm")


def test_an_ultrasound_loop_of_pydicom_is_read_by_its_luminance():
    path = get_testdata_file("examples_ybr_color.dcm")
    cine = read_cine(path)
    assert cine.voxels.shape == (320, 240, 1, 30) and not cine.gated
    np.testing.assert_allclose(np.diff(cine.frame_times), 0.033333)
    by_pillow = np.stack([np.asarray(Image.fromarray(frame).convert("L")).T for frame in dcmread(path).pixel_array], axis=-1)
    np.testing.assert_allclose(cine.voxels[:, :, 0], by_pillow, atol=0.51 + 1 / 128)
    assert "may have text burned into its pixels" in cine.doubts[0]


def test_an_ultrasound_loop_that_is_written_unchanged_shows_the_same(tmp_path):
    path = get_testdata_file("examples_ybr_color.dcm")
    cine = read_cine(path)
    image, source = written(cine, cine, tmp_path), dcmread(path)
    assert image.SOPClassUID == uid.UltrasoundMultiFrameImageStorage
    np.testing.assert_array_equal(image.pixel_array, source.pixel_array)
    assert float(image.FrameTime) == pytest.approx(33.333) and image.FrameIncrementPointer == 0x00181063
    assert (image.LossyImageCompression, image.PatientID) == ("01", source.PatientID)
    before, after = source.SequenceOfUltrasoundRegions[0], image.SequenceOfUltrasoundRegions[0]
    for key in ("PhysicalDeltaX", "PhysicalDeltaY", "RegionLocationMinX0", "RegionLocationMaxY1", "PhysicalUnitsXDirection"):
        assert after[key].value == before[key].value


def test_a_copy_of_a_film_counts_once_and_another_of_its_uid_does_not(frames, tmp_path):
    file = write_film(tmp_path / "a.dcm", frames)
    shutil.copy(file, tmp_path / "b.dcm")
    assert read_cine(tmp_path).voxels.shape == (24, 20, 1, 9)
    known = dcmread(file)
    uids = {key: known[key].value for key in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")}
    write_film(tmp_path / "c.dcm", frames[::-1], **uids)
    with pytest.raises(BadInput, match="holds 2 loops"):
        read_cine(tmp_path)


def test_a_film_of_a_study_of_two_patients_is_refused(frames, tmp_path):
    write_film(tmp_path / "a.dcm", frames, StudyInstanceUID="1.2.3")
    write_film(tmp_path / "still.dcm", frames[:1], StudyInstanceUID="1.2.3", PatientID="another")
    with pytest.raises(BadInput, match="is of a study of 2 patients; separate them first"):
        read_cine(tmp_path)


@pytest.mark.parametrize("key", ["FrameTime", "BurnedInAnnotation", "Rows"])
def test_a_value_of_no_known_kind_is_one_line(key, frames, tmp_path):
    file = write_film(tmp_path / "a.dcm", in_colour(frames), BurnedInAnnotation="NO")
    file.write_bytes(of_no_kind(file.read_bytes(), key))
    with pytest.raises(BadInput, match=r"a\.dcm: ") as raised:
        read_cine(file)
    assert "\n" not in str(raised.value)


def test_a_film_whose_header_cannot_be_copied_is_one_line(frames, tmp_path):
    file = write_film(tmp_path / "a.dcm", in_colour(frames), Manufacturer="ACME")
    cine = read_cine(file)
    file.write_bytes(of_no_kind(file.read_bytes(), "Manufacturer"))
    with pytest.raises(BadInput, match="no DICOM can be written of it"):
        written(cine, cine, tmp_path)


def of_no_kind(content, key):
    """A file whose value of this keyword has a representation that does not exist."""
    tag = tag_for_keyword(key)
    place = content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    return content[: place + 4] + b"QQ" + content[place + 6 :]


def test_lengths_can_be_measured_in_a_finer_result_with_more_frames(frames, tmp_path):
    region = Dataset()
    for key, value in {
        "RegionSpatialFormat": 1, "RegionDataType": 1, "RegionFlags": 2, "RegionLocationMinX0": 4, "RegionLocationMinY0": 2,
        "RegionLocationMaxX1": 19, "RegionLocationMaxY1": 17, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.08, "PhysicalDeltaY": 0.04,
    }.items():  # fmt: skip
        setattr(region, key, value)
    cine = read_cine(write_film(tmp_path / "a.dcm", in_colour(frames), SequenceOfUltrasoundRegions=[region]))
    image = written(finer(cine, space=2, time=2), cine, tmp_path)
    assert (image.NumberOfFrames, image.Rows, image.Columns, float(image.FrameTime)) == (18, 40, 48, 20)
    after = image.SequenceOfUltrasoundRegions[0]
    assert [after[f"RegionLocation{end}"].value for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")] == [8, 4, 39, 35]
    assert (after.PhysicalDeltaX, after.PhysicalDeltaY) == (0.04, 0.02)
    light = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in image.pixel_array[::2]])
    inside = np.s_[:, 4:-4, 4:-4]
    coarse = (
        np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in in_colour(frames)]).repeat(2, 1).repeat(2, 2)
    )
    assert np.abs(light[inside].astype(float) - coarse[inside]).mean() < 3  # where a colour is cut at 0 or 255


@pytest.mark.parametrize("bits", [8, 16])
def test_fluoroscopy_stays_grey_and_becomes_a_secondary_capture(bits, frames, tmp_path):
    stored = frames.astype(np.uint16) * 16
    tags = {"SOPClassUID": uid.XRayRadiofluoroscopicImageStorage, "Modality": "RF"}
    tags |= {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11} if bits == 16 else {}
    source = write_film(tmp_path / "a.dcm", stored if bits == 16 else frames, **tags)
    cine = read_cine(source)
    image = written(cine, cine, tmp_path)
    kinds = {
        8: uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        16: uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    }
    assert (image.SOPClassUID, image.Modality, image.SamplesPerPixel) == (kinds[bits], "RF", 1)
    np.testing.assert_array_equal(image.pixel_array, dcmread(source).pixel_array)
    assert image.BurnedInAnnotation == "YES"  # nobody says that there is none


@needs_dciodvfy
@pytest.mark.parametrize("kind", ["ultrasound", "grey ultrasound", "fluoroscopy", "endoscopy"])
def test_dciodvfy_finds_no_error(kind, frames, tmp_path):
    tags = {
        "fluoroscopy": {"SOPClassUID": uid.XRayRadiofluoroscopicImageStorage, "Modality": "RF"},
        "endoscopy": {"SOPClassUID": uid.MultiFrameTrueColorSecondaryCaptureImageStorage, "Modality": "ES"},
    }.get(kind, {})
    pixels = in_colour(frames) if kind in ("ultrasound", "endoscopy") else frames
    cine = read_cine(write_film(tmp_path / "a.dcm", pixels, PatientBirthDate="", PatientSex="", StudyDate="20200102", **tags))
    image = written(finer(cine), cine, tmp_path)
    del image.SyntheticData  # the program's dictionary is older than this attribute
    image.save_as(tmp_path / "one.dcm")
    said = subprocess.run(["dciodvfy", tmp_path / "one.dcm"], capture_output=True, text=True)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


def test_monochrome1_shows_what_it_showed(frames, tmp_path):
    cine = read_cine(write_film(tmp_path / "a.dcm", 255 - frames, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(cine.voxels[:, :, 0], frames.T)
    assert written(cine, cine, tmp_path).PhotometricInterpretation == "MONOCHROME2"


def test_times_come_from_a_vector_or_the_rate_where_there_is_no_frame_time(frames, tmp_path):
    vector = {"FrameTime": None, "FrameIncrementPointer": 0x00181065, "FrameTimeVector": [0, 33, 34, 33, 33, 34, 33, 33, 34]}
    cine = read_cine(write_film(tmp_path / "a.dcm", frames, **vector))
    np.testing.assert_allclose(cine.frame_times[-1], 0.267)
    cine = read_cine(write_film(tmp_path / "b.dcm", frames, FrameTime=None, FrameIncrementPointer=None, CineRate=25))
    np.testing.assert_allclose(np.diff(cine.frame_times), 0.04)
    assert "taken as 25 a second" in cine.doubts[0]


@pytest.mark.parametrize(
    ("tags", "fact"),
    [
        ({"FrameTime": None, "FrameIncrementPointer": None}, "does not say how long its frames last"),
        ({"FrameTimeVector": [0, 30, 30, 30, 60, 30, 30, 30, 30], "FrameIncrementPointer": 0x00181065}, "lacks 1 frame"),
        ({"FrameTime": "9000"}, "9 s apart, which no film"),
        ({"BurnedInAnnotation": "YES"}, "has text burned into its pixels"),
        ({"SyntheticData": "YES"}, "is synthetic already"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "has a palette colours?|palette"),
        ({"NumberOfFrames": 1}, "holds no cine"),
        ({"NumberOfFrames": 12}, "cannot be read|holds 9 frames of 12"),
        ({"PixelRepresentation": 1}, "not whole numbers of 8 or 16 bits from 0 on"),
        ({"Rows": 60000, "Columns": 60000}, "claims 32 GB of pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes what it is told
def test_a_film_that_cannot_be_used_is_refused_in_one_line(tags, fact, frames, tmp_path):
    path = write_film(tmp_path / "a.dcm", frames, **tags)
    with pytest.raises(BadInput, match=fact) as caught:
        read_cine(path)
    assert "\n" not in str(caught.value)


def test_x_rays_in_colour_are_refused(frames, tmp_path):
    path = write_film(tmp_path / "a.dcm", in_colour(frames), SOPClassUID=uid.XRayAngiographicImageStorage, Modality="XA")
    with pytest.raises(BadInput, match="is in colour, but X-rays are grey"):
        read_cine(path)


def test_two_films_in_a_folder_need_a_choice(frames, tmp_path):
    for name in "ab":
        write_film(tmp_path / f"{name}.dcm", frames)
    with pytest.raises(
        BadInput, match=r"holds 2 loops \(file a\.dcm, file b\.dcm\); give the folder of one series, or one file"
    ):
        read_cine(tmp_path)
    assert read_cine(tmp_path / "b.dcm").voxels.shape == (24, 20, 1, 9)


def test_a_compressed_film_that_is_cut_short_is_refused(tmp_path):
    content = Path(get_testdata_file("examples_ybr_color.dcm")).read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"a\.dcm"):
        read_cine(tmp_path / "a.dcm")


@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes what it is told
def test_no_text_of_a_film_gets_out_but_whose_it_is(frames, tmp_path, rng):
    path = write_film(tmp_path / "a.dcm", in_colour(frames))
    canary.plant(
        path, share=canary_share(0.05), rng=rng, BurnedInAnnotation="NO", PhotometricInterpretation="RGB", SyntheticData="NO"
    )
    cine = read_cine(path)
    assert not canary.found_in(" ".join(cine.doubts))
    write_cine(replace(cine), cine, tmp_path / "out", provenance=provenance(tmp_path))
    got = canary.found_in((tmp_path / "out" / "0001.dcm").read_bytes().decode("latin1"))
    assert "PatientName" in got  # or nothing was planted
    assert got <= {*PATIENT_AND_STUDY, *IF_THERE, *DESCRIPTION}
