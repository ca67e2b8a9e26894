# SPDX-License-Identifier: Apache-2.0
"""4D NIfTI as cine: what comes back as it was, by nibabel, and every fourth axis that is not time."""

import json

import dicom_series
import nibabel as nib
import numpy as np
import pytest
from cine_files import beating, finer
from surroundings import SCANS, needs_scans

from scripts.data.cine import read_cine, write_cine
from scripts.errors import BadInput

MSEC, SEC, USEC, HZ, PPM, MM = 16, 8, 24, 32, 40, 2


def save(path, voxels, *, step=32.5, unit=MSEC, affine=None, intent=0):
    image = nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 8, 1]) if affine is None else affine)
    image.header["pixdim"][4], image.header["xyzt_units"], image.header["intent_code"] = step, MM | unit, intent
    nib.save(image, path)
    return path


@pytest.fixture
def film(rng):
    return beating(rng=rng).astype(np.int16)


@pytest.mark.parametrize(("step", "unit"), [(32.5, MSEC), (0.0325, SEC), (32500, USEC)])
def test_voxels_places_and_times_are_those_of_the_file(step, unit, film, tmp_path, rng):
    affine = dicom_series.random_affine(rng)
    cine = read_cine(save(tmp_path / "a.nii.gz", film, step=step, unit=unit, affine=affine))
    np.testing.assert_array_equal(cine.voxels, film)
    np.testing.assert_allclose(cine.affine, affine, rtol=1e-5, atol=1e-4)  # float32 in the header
    np.testing.assert_allclose(cine.frame_times, 0.0325 * np.arange(10), rtol=1e-6)
    assert cine.voxels.dtype == np.float32 and cine.gated and "its last frame is as near" in cine.doubts[0]


def test_a_finer_result_comes_back_with_its_own_grid_and_times(film, tmp_path, rng):
    cine = read_cine(save(tmp_path / "a.nii", film, affine=dicom_series.random_affine(rng)))
    result = finer(cine, space=4, time=2)
    write_cine(result, cine, tmp_path / "b.nii.gz")
    image = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), result.voxels)
    np.testing.assert_allclose(image.affine, result.affine, rtol=1e-5, atol=1e-4)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(image.header["pixdim"][4], 0.0325 / 2, rtol=1e-6)
    np.testing.assert_allclose(read_cine(tmp_path / "b.nii.gz").frame_times, result.frame_times, atol=1e-6)


def test_frame_times_of_a_sidecar_go_first(film, tmp_path):
    path = save(tmp_path / "a.nii", film)
    (tmp_path / "a.json").write_text(json.dumps({"VolumeTiming": [0.5 + 0.04 * k for k in range(10)]}))
    np.testing.assert_allclose(read_cine(path).frame_times, 0.04 * np.arange(10))
    (tmp_path / "a.json").write_text(json.dumps({"VolumeTiming": [0.04 * k + 0.02 * (k > 4) for k in range(10)]}))
    with pytest.raises(BadInput, match="vary by more than 10%"):
        read_cine(path)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"step": 0.0}, "its frame time .* is 0"),
        ({"step": np.nan}, "its frame time .* is nan"),
        ({"step": 2.2, "unit": SEC}, "2.2 s apart, which no film"),
        ({"step": 1.0, "unit": 0}, "does not say how long its frames last"),
        ({"unit": HZ}, "a spectrum in hertz"),
        ({"unit": PPM}, "a spectrum in ppm"),
        ({"intent": 1007}, "no time .its intent_code is 1007"),
    ],
    ids=str,
)
def test_a_header_whose_fourth_axis_is_no_time_is_refused(given, fact, film, tmp_path):
    path = save(tmp_path / "a.nii", film, **given)
    with pytest.raises(BadInput, match=fact):
        read_cine(path)


@pytest.mark.parametrize(
    ("name", "beside", "fact"),
    [
        ("a.nii.gz", {"a.bval": "0 1000"}, "diffusion directions .a.bval lies beside it"),
        ("a.nii.gz", {"a.bvec": "0 1"}, "diffusion directions .a.bvec"),
        ("sub-1_dwi.nii.gz", {}, "diffusion directions .its name ends in _dwi"),
        ("sub-1_MESE.nii.gz", {}, "echoes .its name ends in _MESE"),
        ("sub-1_asl.nii.gz", {}, "labels and controls"),
        ("a.nii.gz", {"a.json": json.dumps({"EchoTime": [0.01 * k for k in range(10)]})}, "echoes .EchoTime in its JSON"),
        ("a.nii.gz", {"a.json": json.dumps({"InversionTime": [*range(10)]})}, "inversions .InversionTime in its JSON"),
    ],
    ids=str,
)
def test_what_lies_beside_a_file_may_say_that_its_fourth_axis_is_no_time(name, beside, fact, film, tmp_path):
    path = save(tmp_path / name, film)
    for other, text in beside.items():
        (tmp_path / other).write_text(text)
    with pytest.raises(BadInput, match=f"its fourth axis is {fact}"):
        read_cine(path)


def test_volumes_that_decay_as_echoes_are_refused(film, tmp_path):
    decay = np.exp(-np.arange(10) / 4)
    path = save(tmp_path / "a.nii", (film * decay).astype(np.float32))
    with pytest.raises(BadInput, match="each volume is darker than the one before"):
        read_cine(path)


def test_one_volume_five_axes_and_colours_are_refused(film, tmp_path):
    colours = np.zeros(film.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for voxels, fact in {
        "volume": (film[..., 0], "is a single frame"), "axes": (film[..., None].repeat(3, 4), "of more axes"),
        "colours": (colours, "holds colours"),
    }.values():  # fmt: skip
        with pytest.raises(BadInput, match=fact):
            read_cine(save(tmp_path / "a.nii", voxels))


def test_a_file_that_is_cut_short_is_named(film, tmp_path):
    path = save(tmp_path / "a.nii.gz", film)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"a\.nii\.gz: .*; copy or convert it again"):
        read_cine(path)


def test_a_result_is_of_the_kind_of_its_source(film, tmp_path):
    cine = read_cine(save(tmp_path / "a.nii", film))
    with pytest.raises(BadInput, match=r"b\.mp4: a result is of the kind of its source, a\.nii"):
        write_cine(cine, cine, tmp_path / "b.mp4")
    with pytest.raises(BadInput, match="there is no such file or folder"):
        read_cine(tmp_path / "none.nii")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(BadInput, match="is no cine; give a folder of DICOM files, a 4D NIfTI file or a video"):
        read_cine(tmp_path / "a.txt")


@needs_scans
def test_a_real_heart_closes_and_its_times_are_those_that_the_scanner_gave():
    cine = read_cine(SCANS / "cine" / "short_axis_cine.nii.gz")
    assert cine.voxels.shape == (256, 256, 15, 20) and cine.gated
    np.testing.assert_allclose(np.diff(cine.frame_times), 0.631 / 20, rtol=1e-3)  # 95 beats a minute, by its DICOM files


def test_half_of_a_heartbeat_does_not_wrap(tmp_path):
    film = beating((24, 20, 2, 20)).astype(np.int16)[..., :10]
    cine = read_cine(save(tmp_path / "a.nii", film))
    assert not cine.gated and not cine.doubts
