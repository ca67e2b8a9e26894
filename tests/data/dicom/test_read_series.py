# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from subprocess import Popen

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import compress, random_affine, random_voxels, write_enhanced, write_series
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from monai.data.utils import list_data_collate
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from surroundings import SCANS, needs_scans

from scripts.data.dicom import decoder
from scripts.data.dicom.find import find_series
from scripts.data.dicom.read import read_series
from scripts.data.dicom.series import affine_of
from scripts.data.volumes import LoadVolumesd, read_volume
from scripts.errors import BadInput

SHARED = SCANS / "dicom"
DICOM2NIFTI = [
    *("anatomical/001", "ge/anatomical/001", "ge/anatomical/001_implicit", "siemens/anatomical/001_implicit"),
    *(
        "siemens/anatomical/001",
        "generic/anatomical/001",
        "generic/anatomical/001_implicit",
        "generic/anatomical/002_non_isotropic",
    ),
    *("generic/compressed/001", "generic/compressed_j2k/001", "generic/compressed_jpeg/001", "generic/compressed_jpegls/001"),
    *("generic/compressed_rle/001", "hyperfine/anatomical/001", "philips_enhanced/anatomical/001"),
    *("philips_enhanced/anatomical/001_implicit", "siemens_multiframe/anatomical/001"),
]
REFERENCES = [
    ("glioma_ge_study/11-T1post-18670", "glioma_ge_study/reference/B_Ax_T1_+C_11.nii.gz"),
    ("glioma_ge_study/26401-T1prereg-52906", "glioma_ge_study/reference/B_Ax_T1_26401.nii.gz"),
    ("glioma_ge_study/36468-FLAIRreg-58706", "glioma_ge_study/reference/B_Ax_Flair(10000_TR)_36468.nii.gz"),
    ("glioma_ge_study/37830-T2reg-78532", "glioma_ge_study/reference/B_Ax_T2_37870.nii.gz"),
    ("glioma_ge_study/11_HCropVolume", "glioma_ge_study/reference/HippoCrop_2488760777.nii.gz"),
    ("decubitus/hfdr_sagittal_t1", "decubitus/hfdr_sagittal_t1.nii.gz"),
    ("enhanced_xa30/5_anat-T1w_acq-tfl", "enhanced_xa30/anat-T1w_acq-tfl_5.nii.gz"),
    *((f"dicom2nifti/{name}", f"dicom2nifti/{name}_ground_truth.nii.gz") for name in DICOM2NIFTI),
]


def the_series(folder):
    (series,) = find_series(folder).series
    return series


def in_ras(voxels, affine):
    turned = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, dtype=np.float64).squeeze(), affine))
    return turned.get_fdata(), turned.affine


def corners(affine, shape):
    return np.array([(affine @ [*(np.array(shape) - 1) * at, 1])[:3] for at in np.ndindex(2, 2, 2)])


def assert_same_volume(series, voxels, affine):
    (ours, our_affine), (theirs, their_affine) = in_ras(read_series(series), affine_of(series)), in_ras(voxels, affine)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(corners(our_affine, ours.shape), corners(their_affine, ours.shape), atol=1e-3)  # mm
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())  # float32


@needs_scans
@pytest.mark.parametrize(("folder", "reference"), REFERENCES, ids=[folder for folder, _ in REFERENCES])
def test_a_scan_equals_its_conversion_by_others(folder, reference):
    theirs = nib.load(SHARED / reference)
    assert_same_volume(the_series(SHARED / folder), theirs.get_fdata(), theirs.affine)


def test_a_classic_series_of_any_orientation_lands_where_it_was_written(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    write_series(tmp_path, voxels, affine, PatientPosition="FFDL")
    series = the_series(tmp_path)
    volume = read_series(series)
    assert volume.dtype == np.float32 and affine_of(series).dtype == np.float64
    np.testing.assert_array_equal(volume, voxels)  # columns, rows and slices as stored: the frame is right-handed
    np.testing.assert_allclose(affine_of(series), affine, atol=1e-6)


def test_slices_are_ordered_along_their_normal_whatever_their_files_are_called(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    paths = write_series(tmp_path, voxels, affine)
    for new, old in zip(rng.permutation(len(paths)), paths, strict=True):
        old.rename(tmp_path / f"IM{new}")
    series = the_series(tmp_path)
    np.testing.assert_array_equal(read_series(series), voxels)
    np.testing.assert_allclose(affine_of(series), affine, atol=1e-6)


def test_rescaling_is_applied_slice_by_slice_and_a_window_is_not(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    slopes = rng.uniform(0.5, 2, voxels.shape[2]).round(3)
    write_series(
        tmp_path,
        voxels,
        affine,
        RescaleSlope=lambda k: str(slopes[k]),
        RescaleIntercept="-7",
        WindowCenter="10",
        WindowWidth="5",
    )
    np.testing.assert_allclose(read_series(the_series(tmp_path)), voxels * slopes - 7, rtol=1e-6)


def test_an_enhanced_series_lands_where_it_was_written(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    write_enhanced(tmp_path / "one", voxels, affine, order=rng.permutation(voxels.shape[2]))
    series = the_series(tmp_path)
    assert series.enhanced and series.files == (str(tmp_path / "one"),)
    np.testing.assert_array_equal(read_series(series), voxels)
    np.testing.assert_allclose(affine_of(series), affine, atol=1e-6)


def test_a_series_converted_to_enhanced_by_highdicom_stays_the_same(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    classic = [pydicom.dcmread(path) for path in write_series(tmp_path / "classic", voxels, affine)]
    (tmp_path / "enhanced").mkdir()
    converted = LegacyConvertedEnhancedMRImage(classic, generate_uid(), 5, generate_uid(), 1)
    converted.save_as(tmp_path / "enhanced" / "all.dcm")
    series = the_series(tmp_path / "enhanced")
    np.testing.assert_array_equal(read_series(series), voxels)
    np.testing.assert_allclose(affine_of(series), affine, atol=1e-6)


def test_the_echoes_of_an_enhanced_image_are_two_volumes(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    write_enhanced(tmp_path / "one.dcm", voxels, affine, echoes=(12.0, 90.0))
    first, second = sorted(find_series(tmp_path).series, key=lambda series: series.echo_time)
    assert (first.label, second.label) == ("1 t1 (echo 12)", "1 t1 (echo 90)")
    np.testing.assert_array_equal(read_series(first), voxels)
    np.testing.assert_array_equal(read_series(second), voxels + 1)


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless", "JPEGLosslessProcess14_1", "RLELossless"])
def test_compression_does_not_change_the_voxels(tmp_path, rng, syntax):
    voxels, affine = random_voxels(rng), random_affine(rng)
    for path in write_series(tmp_path, voxels, affine):
        compress(path, syntax)
    series = the_series(tmp_path)
    assert not series.problem
    np.testing.assert_array_equal(read_series(series), voxels)


@pytest.mark.parametrize("syntax", ["JPEGLSLossless", "JPEGLosslessProcess14_1", "JPEG2000Lossless"])
def test_a_damaged_stream_is_refused_and_does_not_end_the_process(tmp_path, syntax):
    """Over some of these GDCM throws what nothing catches."""
    rng = np.random.default_rng(0)
    paths = write_series(tmp_path, random_voxels(rng), random_affine(rng))
    for path in paths:
        compress(path, syntax)
    series, whole = the_series(tmp_path), paths[0].read_bytes()
    start = whole.index(b"\xff\x4f\xff" if syntax == "JPEG2000Lossless" else b"\xff\xd8\xff")
    refusals = set()
    for at in range(start + 2, start + 40, 3):  # markers and what they say of the picture
        paths[0].write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_series(series)
        except BadInput as error:
            refusals.add(str(error))
    assert refusals and all("cannot be read" in line and "export it again" in line for line in refusals)


def test_a_decoder_that_broke_off_is_said(tmp_path, rng, monkeypatch):
    for path in write_series(tmp_path, random_voxels(rng), random_affine(rng)):
        compress(path, "JPEG2000Lossless")
    series = the_series(tmp_path)
    monkeypatch.setattr(decoder, "_idle", [])
    monkeypatch.setattr(decoder, "__file__", str(tmp_path / "nowhere.py"))
    with pytest.raises(BadInput, match="the decoder broke off"):
        read_series(series)


def test_one_process_decodes_series_after_series_until_one_ends_it(tmp_path, rng, monkeypatch):
    started = []

    def start(*arguments, **options):
        started.append(Popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(decoder, "_idle", [])
    monkeypatch.setattr(decoder.subprocess, "Popen", start)
    voxels = random_voxels(rng)
    paths = write_series(tmp_path, voxels, random_affine(rng))
    for path in paths:
        compress(path, "JPEG2000Lossless")
    series = the_series(tmp_path)
    for _ in range(3):
        np.testing.assert_array_equal(read_series(series), voxels)
    assert len(started) == 1
    with decoder.Decoder() as asked, paths[0].open("rb") as stream:  # an answer that nobody hears to its end
        next(asked.frames(stream, pydicom.dcmread(stream)))
    np.testing.assert_array_equal(read_series(series), voxels)
    started[-1].kill()
    started[-1].wait()
    np.testing.assert_array_equal(read_series(series), voxels)
    assert len(started) == 3 and [process.poll() is None for process in started] == [False, False, True]


def with_overlay(path):
    """A bit above the twelve that are stored, as old scanners keep overlays in."""
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    pixels = np.frombuffer(dataset.PixelData, "<u2").copy()
    pixels[:17] |= 0x8000
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_bits_above_those_stored_are_masked(tmp_path, rng, kind):
    voxels, affine = random_voxels(rng), random_affine(rng)
    paths = write_series(tmp_path, voxels, affine) if kind == "classic" else [write_enhanced(tmp_path / "one", voxels, affine)]
    for path in paths:
        with_overlay(path)
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), voxels)


def test_signed_pixels_of_twelve_bits_keep_their_sign(tmp_path, rng):
    values = rng.integers(-2048, 2048, (12, 10, 8))
    stored = (values & 0xFFF).astype(np.uint16)  # the four bits above are empty
    write_series(tmp_path, stored, random_affine(rng), PixelRepresentation=1, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), values)


def test_monochrome1_is_inverted_within_its_own_range_and_told(tmp_path, rng):
    voxels = random_voxels(rng)
    write_series(tmp_path, 4000 - voxels, random_affine(rng), PhotometricInterpretation="MONOCHROME1")
    series = the_series(tmp_path)
    np.testing.assert_array_equal(read_series(series), voxels - voxels.min())
    assert "is MONOCHROME1" in series.doubts[0]


def test_slices_of_which_some_are_black_where_others_are_white_are_refused(tmp_path, rng):
    kinds = {"PhotometricInterpretation": lambda k: "MONOCHROME1" if k > 3 else "MONOCHROME2"}
    write_series(tmp_path, random_voxels(rng), random_affine(rng), **kinds)
    with pytest.raises(
        BadInput, match=r"series 1 t1 has 0005\.dcm in MONOCHROME1 and 0001\.dcm in MONOCHROME2, .*; export it again"
    ):
        read_series(the_series(tmp_path))


def test_only_the_volume_that_is_inverted_is_said_to_be(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    both = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
    for echo, kind in (("10", "MONOCHROME1"), ("20", "MONOCHROME2")):
        write_series(tmp_path / echo, voxels, affine, EchoTime=echo, PhotometricInterpretation=kind, **both)
    first, second = find_series(tmp_path).series
    assert "is MONOCHROME1" in first.doubts[0] and not second.doubts


def test_a_table_of_values_that_is_not_applied_is_told(tmp_path, rng):
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [2, 0, 16], "US", b"\0\0\1\0"
    write_series(tmp_path, random_voxels(rng), random_affine(rng), ModalityLUTSequence=[table])
    assert "has a ModalityLUTSequence, which MR images have not" in the_series(tmp_path).doubts[0]


@pytest.mark.parametrize(
    ("padding", "tags"),
    [
        (4095, {"PixelPaddingValue": 4095}),
        (0, {"PixelPaddingValue": 0}),
        (4090, {"PixelPaddingValue": 4085, "PixelPaddingRangeLimit": 4095}),
        (64536, {"PixelPaddingValue": -1000, "PixelRepresentation": 1}),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_far_from_tissue_becomes_the_background(tmp_path, rng, padding, tags, photometric):
    voxels = rng.integers(1000, 4000, (12, 10, 8)).astype(np.uint16)
    padded = rng.random(voxels.shape) < 0.3
    given = {"RescaleSlope": "2", "RescaleIntercept": "-7", "PhotometricInterpretation": photometric}
    write_series(tmp_path, np.where(padded, np.uint16(padding), voxels), random_affine(rng), **given, **tags)
    rest = 2.0 * voxels - 7
    expected = rest[~padded].max() - rest if photometric == "MONOCHROME1" else rest
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), np.where(padded, expected[~padded].min(), expected))


def test_padding_that_is_background_already_stays_as_dcm2niix_leaves_it(tmp_path, rng):
    voxels = random_voxels(rng)
    voxels[:3] = 0
    voxels[3:] += 1
    write_series(tmp_path, voxels, random_affine(rng), PixelPaddingValue=0)
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), voxels)


def test_an_enhanced_file_with_a_private_dimension_is_read(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    dimension = pydicom.Dataset()
    dimension.DimensionIndexPointer, dimension.FunctionalGroupPointer = 0x2005140B, 0x2005140F  # Philips
    dimension.DimensionIndexPrivateCreator = "Philips MR Imaging DD 005"
    write_enhanced(tmp_path / "one", voxels, affine, DimensionIndexSequence=[dimension])
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), voxels)


@pytest.mark.parametrize(
    "tags", [{"PixelSpacing": lambda k: ["1.2", "1.00001"] if k == 3 else ["1.2", "1"]}, {"EchoTime": None}]
)
def test_what_the_headers_promise_is_read(tmp_path, rng, tags):
    """Doctor and reader share one set of tolerances."""
    voxels, affine = random_voxels(rng), random_affine(rng, (1.0, 1.2, 3.0))
    places = [[float(x) for x in ([-1, -1, 1] * (affine @ [0, 0, k, 1])[:3]).round(1)] for k in range(8)]
    write_series(tmp_path, voxels, affine, ImagePositionPatient=lambda k: places[k], **tags)
    series = the_series(tmp_path)
    assert not series.problem
    np.testing.assert_array_equal(read_series(series), voxels)
    np.testing.assert_allclose(affine_of(series), affine, atol=0.087)  # mm: 0.05 in each direction


def test_a_series_loads_as_the_nifti_file_of_it_does(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    write_series(tmp_path / "dicom", voxels, affine)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "t1.nii.gz")
    series = the_series(tmp_path / "dicom")
    ours, theirs = read_volume(series), read_volume(tmp_path / "t1.nii.gz")
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)  # NIfTI keeps float32
    assert ours.meta["source_axcodes"] == theirs.meta["source_axcodes"]
    assert ours.meta["grid_shape"] == theirs.meta["grid_shape"]


def test_a_batch_names_the_files_of_all_conditions_in_their_order(tmp_path, rng):
    voxels, affine = random_voxels(rng), random_affine(rng)
    paths = [path for name in "ab" for path in write_series(tmp_path / name, voxels, affine)]
    pair = [the_series(tmp_path / name) for name in "ab"]
    loaded = LoadVolumesd(("image",))({"case": "x", "image": pair})
    assert loaded["image"].shape == (2, 17, 17, 17)  # padded to what the networks can halve
    (files,) = list_data_collate([loaded])["image"].meta["dicom_files"]
    assert json.loads(files) == [str(path) for path in paths]


def test_a_series_with_a_problem_is_not_read(tmp_path, rng):
    write_series(tmp_path, random_voxels(rng), random_affine(rng))
    with pytest.raises(BadInput, match=r"^series 1 t1 is broken$"):
        read_series(replace(the_series(tmp_path), problem="is broken"))


def test_pixels_that_no_decoder_takes_are_named(tmp_path, rng):
    for path in write_series(tmp_path, random_voxels(rng), random_affine(rng)):
        compress(path, "JPEG2000Lossless")
        dataset = pydicom.dcmread(path)
        dataset.PixelData = dataset.PixelData[:60] + b"\xfe\xff\xdd\xe0\0\0\0\0"
        dataset.save_as(path)
    with pytest.raises(BadInput, match=r"series 1 t1 cannot be read .*; export it again$"):
        read_series(the_series(tmp_path))
