# SPDX-License-Identifier: Apache-2.0
"""What a series is called, and how it is kept."""

import json

import numpy as np
from dicom_series import random_affine, random_voxels, write_enhanced
from pydicom.uid import generate_uid
from test_find_series import same_series, write  # noqa: F401  a fixture

from scripts.data.dicom import DicomSeries
from scripts.data.dicom.find import find_series


def test_a_series_is_the_same_after_json(tmp_path, write):  # noqa: F811
    write()
    (series,) = find_series(tmp_path).series
    assert DicomSeries.of(json.loads(json.dumps(series.content()))) == series


def test_two_series_of_one_label_get_labels_that_a_rule_can_tell_apart(tmp_path, write, rng):  # noqa: F811
    study, affine = generate_uid(), random_affine(rng)
    for folder in "ab":
        write(folder, affine, StudyInstanceUID=study)
    series = find_series(tmp_path).series
    assert [one.part for one in series] == [f"uid {one.uid[-8:]}" for one in series] and len({one.label for one in series}) == 2


def test_two_enhanced_files_of_one_series_are_told_apart_by_their_names(tmp_path, rng):
    voxels, affine, uids = random_voxels(rng), np.diag([-1.0, -1, 2, 1]), same_series()
    for name in "ab":
        write_enhanced(tmp_path / f"{name}.dcm", voxels, affine, **uids)
    assert [series.part for series in find_series(tmp_path).series] == ["axial 12x10 file a.dcm", "axial 12x10 file b.dcm"]


def test_records_of_0_6_0_are_still_read():
    old = {"files": ["a"], "uid": "1", "study_uid": "2", "patient_id": "p", "doubt": "is a localizer"}
    assert DicomSeries.of(old).exclusion == "is a localizer"
