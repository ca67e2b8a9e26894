# SPDX-License-Identifier: Apache-2.0
"""Cine MR in DICOM: read whatever the order of its files, refused where frames are missing, answered in kind."""

import shutil
import subprocess
from dataclasses import replace

import canary
import dicom_series
import numpy as np
import pytest
import SimpleITK
from cine_files import STEP_MS, beating, canary_share, finer, provenance, trigger_times, write_classic, write_enhanced
from highdicom import imread
from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from surroundings import SCANS, needs_dciodvfy, needs_scans

from scripts.data.cine import read_cine, write_cine
from scripts.data.dicom.whitelist import DESCRIPTION, IF_THERE, PATIENT_AND_STUDY
from scripts.errors import BadInput

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
WRITE = {"classic": lambda folder, *a, **k: write_classic(folder, *a, **k), "enhanced": lambda folder, *a, **k: [
    write_enhanced(folder / "1.dcm", *a, **k)]}  # fmt: skip
each_kind = pytest.mark.parametrize("kind", WRITE)
ROUNDED_MM = 1e-4  # of places, which a decimal string holds with 10 digits


@each_kind
def test_voxels_places_and_times_are_those_of_the_files(kind, film, affine, tmp_path):
    WRITE[kind](tmp_path / "in", film, affine)
    cine = read_cine(tmp_path / "in")
    np.testing.assert_array_equal(cine.voxels, film)
    np.testing.assert_allclose(cine.affine, affine, rtol=0, atol=ROUNDED_MM)
    np.testing.assert_allclose(cine.frame_times, trigger_times(10, start=0) / 1000, atol=1e-9)
    assert (cine.gated, cine.doubts) == (True, ())


def test_one_slice_in_one_file_or_folder_is_a_cine(film, affine, tmp_path):
    write_classic(tmp_path / "in", film[:, :, :1], affine)
    path = write_enhanced(tmp_path / "one.dcm", film[:, :, :1], affine)
    for source in (tmp_path / "in", path):
        cine = read_cine(source)
        np.testing.assert_array_equal(cine.voxels, film[:, :, :1])
        np.testing.assert_allclose(cine.affine, affine, rtol=0, atol=ROUNDED_MM)


def result_of(kind, film, affine, folder, **tags):
    WRITE[kind](folder / "in", film, affine, **tags)
    cine = read_cine(folder / "in")
    result = finer(cine, space=2, time=2)
    write_cine(result, cine, folder / "out", provenance=provenance(folder))
    return result, sorted((folder / "out").iterdir())


def frames_by_pydicom(paths):
    """(trigger time, position) -> values (columns, rows) and where they lie, read by pydicom alone."""
    for path in paths:
        image = dcmread(path)
        shared = image.get("SharedFunctionalGroupsSequence", [None])[0]
        for number, group in enumerate(image.get("PerFrameFunctionalGroupsSequence") or [image]):
            rescale = shared.PixelValueTransformationSequence[0] if shared else image
            pixels = image.pixel_array[number] if shared else image.pixel_array
            place = group.PlanePositionSequence[0] if shared else image
            time = group.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime if shared else image.TriggerTime
            values = pixels * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
            yield float(time), np.array(place.ImagePositionPatient, dtype=float), values.T


@each_kind
def test_a_finer_result_keeps_voxels_times_and_places(kind, film, affine, tmp_path):
    result, paths = result_of(kind, film, affine, tmp_path)
    assert len(paths) == (60 if kind == "classic" else 1)
    step = np.ptp(result.voxels) / 65535
    seen = set()
    for time, place, values in frames_by_pydicom(paths):
        frame = round((time - 10) / (STEP_MS / 2))
        assert time == pytest.approx(10 + frame * STEP_MS / 2)
        places = np.array([(LPS @ result.affine @ [0, 0, k, 1])[:3] for k in range(3)])
        k = int(np.abs(places - place).sum(axis=1).argmin())
        np.testing.assert_allclose(places[k], place, atol=ROUNDED_MM)
        np.testing.assert_allclose(values, result.voxels[:, :, k, frame], atol=0.51 * step)
        seen.add((k, frame))
    assert len(seen) == 60


def test_simpleitk_reads_every_slice_of_a_classic_result_in_order(film, affine, tmp_path):
    result, paths = result_of("classic", film, affine, tmp_path)
    one = [path for path in paths if dcmread(path).TemporalPositionIdentifier == 3]
    image = SimpleITK.ReadImage([str(path) for path in one])
    voxels = SimpleITK.GetArrayFromImage(image).T
    np.testing.assert_allclose(voxels, result.voxels[..., 2], atol=np.ptp(result.voxels) / 65535)
    lps = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    np.testing.assert_allclose((LPS[:3, :3] @ lps), result.affine[:3, :3], atol=ROUNDED_MM)


def test_highdicom_finds_a_volume_at_every_time_of_an_enhanced_result(film, affine, tmp_path):
    result, (path,) = result_of("enhanced", film, affine, tmp_path)
    image = imread(path)
    frames = image.get_frames(apply_real_world_transform=False).reshape(3, 20, *result.voxels.shape[1::-1])
    indices = [group.FrameContentSequence[0].DimensionIndexValues[1:] for group in image.PerFrameFunctionalGroupsSequence]
    assert indices == [[k + 1, frame + 1] for k, frame in np.ndindex(3, 20)]
    np.testing.assert_allclose(frames[1, 7].T, result.voxels[:, :, 1, 7], atol=np.ptp(result.voxels) / 65535)


@each_kind
def test_a_result_is_of_the_kind_of_its_source_and_says_what_it_is(kind, film, affine, tmp_path):
    _, paths = result_of(kind, film, affine, tmp_path)
    image = dcmread(paths[0])
    assert image.SOPClassUID == {"classic": MRImageStorage, "enhanced": EnhancedMRImageStorage}[kind]
    assert image.SyntheticData == "YES" and image.ImageType[0] == "DERIVED"
    assert image.SeriesDescription == "AI super-resolution 2x2x1 of cine, not for diagnosis"
    assert image.RecognizableVisualFeatures == "NO" and image.BodyPartExamined == "HEART"
    source = dcmread(next((tmp_path / "in").iterdir()))
    assert image.StudyInstanceUID == source.StudyInstanceUID and image.SeriesInstanceUID != source.SeriesInstanceUID
    with pytest.raises(BadInput, match="is synthetic already"):
        read_cine(tmp_path / "out")


def test_an_image_names_the_frames_that_its_slice_was_made_from(film, affine, tmp_path):
    _, paths = result_of("classic", film, affine, tmp_path)
    sources = {dcmread(path).SOPInstanceUID: dcmread(path).ImagePositionPatient for path in (tmp_path / "in").iterdir()}
    for path in paths[::7]:
        image = dcmread(path)
        named = [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence]
        assert len(named) == 10
        slices = {tuple(np.round(np.array(sources[uid], dtype=float), 1)) for uid in named}
        assert len(slices) == 1
        # the centre of the first pixel moved by half of the difference of two pixels, within the plane
        assert np.linalg.norm(np.subtract(*slices, image.ImagePositionPatient)) < 1.0


@needs_dciodvfy
@each_kind
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "not gated"])
def test_dciodvfy_finds_no_error(kind, gated, film, affine, tmp_path):
    tags = {} if gated or kind == "enhanced" else {
        "TriggerTime": None, "NominalInterval": None, "BodyPartExamined": None,
        "AcquisitionTime": lambda n: f"1015{0.0325 * (n % 10):09.6f}",
    }  # fmt: skip
    _, paths = result_of(kind, film, affine, tmp_path, **tags)
    for path in (paths[0], paths[-1]):
        image = dcmread(path)
        assert (image.get("TriggerTime") is None) == (kind == "enhanced" or not gated)
        del image.SyntheticData  # the program's dictionary is older than this attribute
        image.save_as(tmp_path / "one.dcm")
        said = subprocess.run(["dciodvfy", tmp_path / "one.dcm"], capture_output=True, text=True)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


def test_frames_of_a_scan_without_gating_are_ordered_by_the_clock_on_the_wall(film, affine, tmp_path):
    tags = {"TriggerTime": None, "NominalInterval": None, "AcquisitionTime": lambda n: f"1015{0.0325 * (n % 10):09.6f}"}
    write_classic(tmp_path / "in", film, affine, **tags)
    cine = read_cine(tmp_path / "in")
    np.testing.assert_array_equal(cine.voxels, film)
    np.testing.assert_allclose(cine.frame_times, 0.0325 * np.arange(10), atol=1e-6)
    assert not cine.gated
    write_cine(cine, cine, tmp_path / "out", provenance=provenance(tmp_path))
    image = dcmread(tmp_path / "out" / "0010.dcm")
    assert (image.TemporalPositionIdentifier, float(image.TemporalResolution)) == (10, pytest.approx(32.5))


def test_each_slice_keeps_its_own_trigger_times(film, affine, tmp_path):
    starts = [10.0, 25.0, 3.0]
    write_classic(tmp_path / "in", film, affine, TriggerTime=lambda n: f"{starts[n // 10] + STEP_MS * (n % 10):g}")
    cine = read_cine(tmp_path / "in")
    write_cine(cine, cine, tmp_path / "out", provenance=provenance(tmp_path))
    firsts = [float(dcmread(tmp_path / "out" / f"{1 + 10 * k:04d}.dcm").TriggerTime) for k in range(3)]
    assert firsts == pytest.approx(starts)


def test_a_loop_of_part_of_a_heartbeat_does_not_wrap(film, affine, tmp_path):
    write_classic(tmp_path / "in", film, affine, NominalInterval=400)
    cine = read_cine(tmp_path / "in")
    assert not cine.gated and "covers 325 of the 400 ms of a heartbeat, so time does not wrap" in cine.doubts[0]


def test_stills_and_copies_beside_a_loop_are_left_alone(film, affine, tmp_path):
    paths = write_classic(tmp_path / "in" / "cine", film, affine)
    dicom_series.write_series(tmp_path / "in" / "still", film[..., 0], affine)
    shutil.copy(paths[4], tmp_path / "in" / "copy.dcm")
    np.testing.assert_array_equal(read_cine(tmp_path / "in").voxels, film)


# Refused


def refused(folder, fact):
    with pytest.raises(BadInput, match=fact) as caught:
        read_cine(folder)
    assert "\n" not in str(caught.value)


def test_missing_frames_are_named(film, affine, tmp_path):
    paths = write_classic(tmp_path / "in", film, affine)
    paths[14].unlink()
    refused(tmp_path / "in", "lacks frames: slice 2 of 3 has 9 frames, others 10; send the whole series again")
    for n in (4, 24):
        paths[n].unlink()
    refused(tmp_path / "in", r"lacks 1 frame: frames 4 and 5 are 65 ms apart, the others 32\.5 ms; send the whole series")


def test_a_missing_slice_is_named(film, affine, tmp_path):
    paths = write_classic(tmp_path / "in", beating((24, 20, 4, 10)), affine)
    for path in paths[10:20]:
        path.unlink()
    refused(tmp_path / "in", r"(lacks 1 slice|unevenly spaced)")


def test_two_frames_at_one_time_are_named(film, affine, tmp_path):
    write_classic(tmp_path / "in", film, affine, times=[10, 42, 42, *range(107, 330, 32)])
    refused(tmp_path / "in", r"has \d+\.dcm and \d+\.dcm at one place and time; remove one of them")


def test_uneven_frame_times_are_refused(film, affine, tmp_path):
    times = trigger_times(10)
    times[5:] += 4
    write_classic(tmp_path / "in", film, affine, times=times)
    refused(tmp_path / "in", r"its frame times vary by more than 10%: frames 5 and 6 are 36\.5 ms apart")


@pytest.mark.parametrize(
    ("tags", "fact"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8,
          "BitsStored": 8, "HighBit": 7}, "is in colour"),
        ({"ImageType": lambda n: ["ORIGINAL", "PRIMARY", "MP"[n % 2]]}, "frames of 2 components"),
        ({"EchoTime": lambda n: str(10 + n % 2)}, "frames of 2 echoes"),
        ({"PhotometricInterpretation": lambda n: f"MONOCHROME{1 + n % 2}"}, "black where the other is white"),
        ({"DiffusionBValue": lambda n: float(100 * (n % 10))}, "frames of 10 b-values"),
        ({"TriggerTime": None}, "does not say when its frames were taken"),
        ({"TriggerTime": lambda n: f"{2000 * (n % 10)}"}, "2 s apart, which no film"),
        ({"BurnedInAnnotation": "YES"}, "has text burned into its pixels"),
        ({"PixelSpacing": None}, "lacks PixelSpacing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_grey_loop_in_time_is_refused(tags, fact, film, affine, tmp_path):
    write_classic(tmp_path / "in", film, affine, **tags)
    refused(tmp_path / "in", fact)


def test_a_colour_frame_among_grey_ones_is_refused(film, affine, tmp_path):
    paths = write_classic(tmp_path / "in", film, affine)
    image = dcmread(paths[-1])
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.PixelData *= 3
    image.save_as(paths[-1])
    refused(tmp_path / "in", "is in colour")


def test_stills_two_loops_and_nothing_at_all_are_refused(film, affine, tmp_path):
    dicom_series.write_series(tmp_path / "still", film[..., 0], affine)
    refused(tmp_path / "still", "holds no cine: series 1 t1 is a single frame at each place; give the folder of the whole loop")
    for name in "ab":
        write_classic(tmp_path / "two" / name, film, affine, SeriesDescription=f"cine {name}")
    refused(tmp_path / "two", r"holds 2 loops \(series 1 cine a, series 1 cine b\); give the folder of one series")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "holds no DICOM images")


@each_kind
def test_a_file_that_is_cut_short_is_named(kind, film, affine, tmp_path):
    path = WRITE[kind](tmp_path / "in", film, affine)[-1]
    for size in (path.stat().st_size - 400, 500):
        path.write_bytes(path.read_bytes()[:size])
        refused(tmp_path / "in", f"{path.name}.*copy it again")


def test_nothing_is_left_where_a_source_is_gone(film, affine, tmp_path):
    paths = write_classic(tmp_path / "in", film, affine)
    cine = read_cine(tmp_path / "in")
    paths[3].unlink()
    with pytest.raises(BadInput, match="lacks frames"):
        write_cine(cine, cine, tmp_path / "out", provenance=provenance(tmp_path))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="give its provenance"):
        write_cine(cine, cine, tmp_path / "out")


# Privacy


@each_kind
@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes what it is told
def test_no_text_of_a_cine_gets_out_but_whose_it_is(kind, film, affine, tmp_path, rng):
    for path in WRITE[kind](tmp_path / "in", film, affine):
        canary.plant(
            path, share=canary_share(0.02), rng=rng, SeriesDescription="cine", BodyPartExamined="HEART", BurnedInAnnotation="NO"
        )
    cine = read_cine(tmp_path / "in")
    assert not canary.found_in(" ".join(cine.doubts))
    write_cine(replace(cine), cine, tmp_path / "out", provenance=provenance(tmp_path))
    got = set()
    for path in sorted((tmp_path / "out").iterdir())[::9]:
        got |= canary.found_in(path.read_bytes().decode("latin1"))
    assert "PatientName" in got  # or nothing was planted
    assert got <= {*PATIENT_AND_STUDY, *IF_THERE, *DESCRIPTION}


@needs_scans
def test_a_real_slice_of_a_heart_comes_back_with_its_trigger_times(tmp_path):
    folder = SCANS / "cine" / "dicom_one_slice"
    cine = read_cine(folder)
    assert cine.voxels.shape == (256, 256, 1, 20) and cine.gated
    images = sorted((dcmread(path) for path in folder.iterdir()), key=lambda image: image.InstanceNumber)
    np.testing.assert_array_equal(cine.voxels[:, :, 0], np.stack([image.pixel_array.T for image in images], axis=-1))
    write_cine(cine, cine, tmp_path / "out", provenance=provenance(tmp_path))
    written = [dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert [float(image.TriggerTime) for image in written] == [float(image.TriggerTime) for image in images]
    np.testing.assert_allclose(written[0].ImagePositionPatient, images[0].ImagePositionPatient, atol=ROUNDED_MM)


@needs_scans
def test_a_real_slice_lies_where_the_converter_of_its_stack_puts_it():
    """Its folder and the NIfTI file of all slices are of one scan, converted by others."""
    one, stack = read_cine(SCANS / "cine" / "dicom_one_slice"), read_cine(SCANS / "cine" / "short_axis_cine.nii.gz")
    (k,) = [k for k in range(stack.voxels.shape[2]) if np.array_equal(one.voxels[:, :, 0], stack.voxels[:, :, k])]
    corners = np.array([[0, 0, 0, 1], [255, 0, 0, 1], [0, 255, 0, 1]]).T
    np.testing.assert_allclose(
        (one.affine @ corners)[:3], (stack.affine @ np.add(corners, [[0], [0], [k], [0]]))[:3], atol=0.02
    )
    np.testing.assert_allclose(one.frame_times, stack.frame_times, atol=1e-3)  # trigger times are whole milliseconds
