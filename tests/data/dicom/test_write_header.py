# SPDX-License-Identifier: Apache-2.0
"""Headers of results whose source is odd."""

import warnings

import pytest
from dicom_series import random_affine, random_voxels, write_series
from pydicom import dcmread
from test_write_dicom import classic, module_rng, source_of  # noqa: F401  fixtures

from scripts.data.dicom.whitelist import read_source


@pytest.mark.parametrize(
    ("charset", "name"),
    [(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("ISO_IR 138", "שרון^דבורה"), ("ISO_IR 100", "Äneas^Rüdiger")],
)
def test_a_name_in_any_alphabet_survives(classic, charset, name):  # noqa: F811
    for path in classic.sources:
        dataset = dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName, dataset.StudyDescription = charset, name, ""
        dataset.save_as(path)
    classic.save_both()
    assert str(classic.first.PatientName) == name


def test_a_source_without_frame_of_reference_gets_one_for_both_results(classic):  # noqa: F811
    for path in classic.sources:
        dataset = dcmread(path)
        del dataset.FrameOfReferenceUID, dataset.AccessionNumber
        dataset.PatientSex = "unknown"
        dataset.save_as(path)
    classic.save_both()
    first, uncertainty = classic.first, dcmread(classic.written[-1])
    assert first.FrameOfReferenceUID == uncertainty.FrameOfReferenceUID != ""
    assert (first.PatientSex, first.AccessionNumber) == ("", "")


def test_a_value_that_breaks_the_standard_is_not_told_when_a_source_is_read_again(tmp_path, rng, monkeypatch):
    paths = write_series(tmp_path, random_voxels(rng), random_affine(rng), SpecificCharacterSet="ISO_IR 100")
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patch.setattr(warnings, "filterwarnings", lambda *_, **__: None)  # as where another thread put the filters back
        read_source([str(path) for path in paths])
    assert not told
