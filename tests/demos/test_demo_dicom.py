# SPDX-License-Identifier: Apache-2.0
"""From a DICOM study to a derived series in it, as `make demo-dicom` does it."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from scripts.demos.demo_dicom import demo_dicom

sys.path.append(str(Path(__file__).parents[1] / "data" / "dicom"))
import dicom_series

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("described", "contrast"), [("T1 mprage", "t1"), ("T2 FLAIR", "flair")])
def test_a_study_gets_a_finer_series_and_a_report(described, contrast, rng, tmp_path, capsys):
    """Of its FLAIR where it has one; beside it lies a T1w in both."""
    voxels = np.zeros((40, 36, 10), np.uint16)
    voxels[6:-6, 6:-6, 1:-1] = rng.integers(300, 1200, (28, 24, 8))
    affine = dicom_series.random_affine(rng, (2.0, 2.0, 6.0))
    study = {"StudyInstanceUID": pydicom.uid.generate_uid(), "PatientID": "anna"}
    for name in {"T1 mprage", described}:
        dicom_series.write_series(tmp_path / "study" / name.replace(" ", "_"), voxels, affine, SeriesDescription=name, **study)
    demo_dicom(str(tmp_path / "study"), str(tmp_path / "out"))
    (series,) = (tmp_path / "out" / "any").glob("*/pred")
    slices = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    assert {one.StudyInstanceUID for one in slices} == {study["StudyInstanceUID"]}
    assert len(slices) == 3 * voxels.shape[2] and float(slices[0].SliceThickness) == pytest.approx(2.0, abs=0.01)
    assert slices[0].SeriesDescription.startswith(f"AI slices as scanned of {contrast},")
    assert f"{series}: {len(slices)} files, {slices[0].SeriesDescription}" in capsys.readouterr().out
    assert (tmp_path / "out" / "any" / "report.html").is_file()
