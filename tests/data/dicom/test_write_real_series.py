# SPDX-License-Identifier: Apache-2.0
"""Series of real scanners, written again as results: dcm2niix must make the same of both. Skipped where there are none."""

import json
import subprocess
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom import dcmread
from surroundings import SCANS, needs_dciodvfy, needs_scans

from scripts.data import Provenance, SaveVolumed
from scripts.data.dicom.find import find_series
from scripts.data.dicom.read import read_series
from scripts.data.dicom.series import affine_of
from scripts.data.meta_tensors import make_volume
from scripts.measurement import BlockAverage, Task

pytestmark = needs_scans
SERIES = [
    "glioma_ge_study/11-T1post-18670", "decubitus/hfdr_sagittal_t1", "enhanced_xa30", "dicom2nifti/ge/anatomical/001",
    "dicom2nifti/philips_enhanced/anatomical/001", "dicom2nifti/hyperfine/anatomical/001",
]  # fmt: skip


@pytest.fixture(scope="module", params=SERIES)
def rewritten(request, tmp_path_factory):
    """Folder of a real series, and of what was written of it."""
    folder = SCANS / "dicom" / request.param
    tmp_path = tmp_path_factory.mktemp("rewritten")
    series = next(one for one in find_series(folder).series if not one.problem)
    volume = make_volume(torch.from_numpy(read_series(series))[None], affine_of(series), {})
    volume.meta["dicom_files"] = json.dumps(series.files)
    weights = tmp_path / "some.pt"
    weights.write_bytes(b"weights")
    provenance = Provenance("some", str(weights), task=Task(["t1"], "t1", BlockAverage((4, 4, 4))), nfe=1, samples=1, seed=0)
    keys = ["pred", "uncertainty"]
    data = {"case": "a", "pred": volume, "uncertainty": volume}
    SaveVolumed(keys, tmp_path / "out", suffixes=keys, provenance=provenance)(data)
    return Path(series.files[0]).parent, tmp_path / "out" / "a"


def by_dcm2niix(folder, out):
    out.mkdir()
    plain = ["-b", "n", "-p", "n"]  # without Philips' private scaling, which only the source has
    subprocess.run([dcm2niix.bin, *plain, "-f", "one", "-o", str(out), str(folder)], check=True, capture_output=True)
    return nib.as_closest_canonical(nib.load(min(out.glob("*.nii"))))


def test_dcm2niix_makes_the_same_of_source_and_result(rewritten, tmp_path):
    source, result = by_dcm2niix(rewritten[0], tmp_path / "source"), by_dcm2niix(rewritten[1] / "pred", tmp_path / "result")
    np.testing.assert_allclose(result.affine, source.affine, rtol=0, atol=1e-3)
    wanted = source.get_fdata()
    step = np.ptp(wanted) / 65535
    np.testing.assert_allclose(result.get_fdata(), wanted, rtol=1e-6, atol=0.5 * step + 1e-3)


@needs_dciodvfy
def test_dciodvfy_finds_no_error_whatever_the_scanner_wrote(rewritten, tmp_path):
    for path in (min((rewritten[1] / "pred").iterdir()), rewritten[1] / "uncertainty.dcm"):
        dataset = dcmread(path)
        del dataset.SyntheticData  # the program's dictionary, of 2022, is older than this attribute
        dataset.save_as(tmp_path / "one.dcm")
        said = subprocess.run(["dciodvfy", tmp_path / "one.dcm"], capture_output=True, text=True)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
