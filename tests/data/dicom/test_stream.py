# SPDX-License-Identifier: Apache-2.0
"""Files that break the frame of DICOM files, and files that would fill the memory."""

import time
import zlib

import numpy as np
import pydicom
import pytest
from dicom_series import random_affine, random_voxels, write_series
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from scripts.data.dicom.find import find_series
from scripts.data.dicom.read import read_series


@pytest.fixture
def scan(tmp_path, rng):
    voxels = random_voxels(rng)
    return voxels, write_series(tmp_path, voxels, random_affine(rng))


def change(paths, syntax):
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=True)


def assert_read(folder, voxels):
    found = find_series(folder)
    assert not found.refused
    (series,) = found.series
    np.testing.assert_array_equal(read_series(series), voxels)


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize("start", [132, 128])
def test_files_without_preamble_are_read(tmp_path, scan, start, suffix):
    voxels, paths = scan
    for path in paths:
        path.write_bytes(path.read_bytes()[start:])
        path.rename(path.with_suffix(suffix))
    assert_read(tmp_path, voxels)


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_file_meta_are_read(tmp_path, scan, implicit):
    voxels, paths = scan
    if implicit:
        change(paths, ImplicitVRLittleEndian)
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    assert_read(tmp_path, voxels)


def test_files_that_name_no_transfer_syntax_are_read(tmp_path, scan):
    voxels, paths = scan
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.file_meta.TransferSyntaxUID
        dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert_read(tmp_path, voxels)


def test_deflated_files_are_read(tmp_path, scan):
    voxels, paths = scan
    change(paths, DeflatedExplicitVRLittleEndian)
    assert_read(tmp_path, voxels)


def test_a_deflated_file_cut_short_spoils_its_series(tmp_path, scan):
    _, paths = scan
    change(paths, DeflatedExplicitVRLittleEndian)
    paths[3].write_bytes(paths[3].read_bytes()[:-60])
    assert "0004.dcm" in find_series(tmp_path).series[0].problem


@pytest.mark.parametrize("claim", [(10, 12), (30000, 30000)])
def test_a_file_that_inflates_without_end_is_refused_in_seconds(tmp_path, scan, claim):
    """300 MB of zeros in 0.3 MB, after a header that claims little or much."""
    _, (path, *others) = scan
    for other in others:
        other.unlink()
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = claim
    dataset.save_as(path)
    change([path], DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    plain = zlib.decompress(content[end:], -zlib.MAX_WBITS)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join([deflate.compress(plain), *(deflate.compress(bytes(1 << 24)) for _ in range(18)), deflate.flush()])
    path.write_bytes(content[:end] + bomb)
    start = time.process_time()
    (line,) = find_series(tmp_path).refused
    assert "inflate to far more than an image of its size" in line
    assert time.process_time() - start < 5  # with a bound it takes about 0.3 s


def test_a_header_that_claims_more_than_any_scan_is_refused(tmp_path, rng):
    write_series(tmp_path, random_voxels(rng), random_affine(rng), Rows=65535, Columns=65535)
    assert find_series(tmp_path).series[0].problem.startswith("claims 65535x65535 pixels, 9 GB in a file")
