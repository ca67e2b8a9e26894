# SPDX-License-Identifier: Apache-2.0
"""What pixels hold besides values: bits above these, and padding."""

import numpy as np
import pydicom
import pytest
from dicom_series import random_affine, random_voxels, write_enhanced, write_series
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from scripts.data.dicom.find import find_series
from scripts.data.dicom.read import read_series


def the_series(folder):
    (series,) = find_series(folder).series
    return series


@pytest.mark.parametrize(
    ("tags", "factor", "told"),
    [
        ({}, 1, False),
        ({}, 4, True),
        ({"RescaleSlope": "2", "PixelRepresentation": 1}, 4, True),
        ({"BitsAllocated": 32}, 4, True),
        ({"HighBit": 15}, 16, False),
        ({"OverlayBitPosition": 12}, 4, False),
        ({"OverlayBitPosition": 0}, 4, True),
    ],
)
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_values_beyond_those_stored_are_told(tmp_path, rng, kind, tags, factor, told):
    voxels, affine = random_voxels(rng) * np.uint16(factor), random_affine(rng)
    paths = write_series(tmp_path, voxels, affine) if kind == "classic" else [write_enhanced(tmp_path / "one", voxels, affine)]
    for path in paths:
        dataset = pydicom.dcmread(path)
        given = {"BitsStored": 12, "HighBit": 11, **tags}
        if (bit := given.pop("OverlayBitPosition", None)) is not None:
            dataset.add_new(0x60020102, "US", bit)
        for keyword, value in given.items():
            setattr(dataset, keyword, value)
        pixels = np.frombuffer(dataset.PixelData, "<u2")
        dataset.PixelData = pixels.astype(f"<u{dataset.BitsAllocated // 8}").tobytes()
        dataset.save_as(path)
    assert [("bits above BitsStored" in line) for line in the_series(tmp_path).doubts] == [True] * told


def test_a_sign_that_fills_the_bits_above_is_none_of_them(tmp_path, rng):
    values = rng.integers(-2048, 2048, (12, 10, 8)).astype(np.int16)
    write_series(tmp_path, values, random_affine(rng), PixelRepresentation=1, BitsStored=12, HighBit=11)
    series = the_series(tmp_path)
    np.testing.assert_array_equal(read_series(series), values)
    assert not series.doubts


@pytest.mark.parametrize(
    ("keyword", "kind", "value"),
    [
        *(("HighBit", "US", value) for value in (b"", b"\7", b"\7\0\7\0")),
        (0x60000102, "US", b"\7"),  # where an overlay lies
        *((keyword, "IS", b"some") for keyword in ("SeriesNumber", "InstanceNumber", "ImagesInAcquisition")),
        *((keyword, "IS", b"1\\1 ") for keyword in ("SeriesNumber", "InstanceNumber", "ImagesInAcquisition")),
        *((keyword, "DS", b"thin") for keyword in ("SliceThickness", "SpacingBetweenSlices")),
        *(("RealWorldValueSlope", "FD", value) for value in (b"\7", bytes(16))),
    ],
)
def test_a_tag_of_which_no_voxel_depends_refuses_none(tmp_path, rng, keyword, kind, value):
    voxels = random_voxels(rng)
    for path in write_series(tmp_path, voxels, random_affine(rng)):
        dataset, tag = pydicom.dcmread(path), Tag(keyword)
        dataset.pop(tag, None)
        dataset[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True, True)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), voxels)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_tissue_that_has_the_value_of_padding_stays(tmp_path, rng, photometric):
    voxels = rng.integers(0, 100, (12, 10, 8)).astype(np.uint16)  # the value is a hundredth of all, of the faces, too
    write_series(tmp_path, voxels, random_affine(rng), PixelPaddingValue=40, PhotometricInterpretation=photometric)
    expected = np.float32(voxels.max()) - voxels if photometric == "MONOCHROME1" else voxels
    np.testing.assert_array_equal(read_series(the_series(tmp_path)), expected)


def test_padding_around_a_volume_becomes_its_darkest_though_tissue_has_its_value(tmp_path, rng):
    voxels = rng.integers(1000, 4000, (12, 10, 8)).astype(np.uint16)
    voxels[6, 5, 4] = 2000
    padded = np.zeros(voxels.shape, bool)
    padded[:3] = True
    write_series(tmp_path, np.where(padded, np.uint16(2000), voxels), random_affine(rng), PixelPaddingValue=2000)
    read = read_series(the_series(tmp_path))
    assert (read[padded] == voxels[~padded].min()).all() and read[6, 5, 4] == 2000
