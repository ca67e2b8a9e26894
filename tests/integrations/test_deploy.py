# SPDX-License-Identifier: Apache-2.0
"""The application for MONAI Deploy, run for real where its SDK is installed (`make test-integrations`)."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from surroundings import needs

from scripts import bundle_root

sys.path.append(str(Path(__file__).parents[1] / "data" / "dicom"))
import dicom_series

pytestmark = needs("MONAI Deploy (make test-integrations)", find_spec("monai.deploy"))
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING = (6.0, 7.0, 7.0)  # mm, which become 1; in-plane spacings differ: the SDK's own operator would swap them


def run_app(source, target, **environment):
    command = [sys.executable, "-W", "ignore", "-m", "scripts.integrations.deploy", "-i", str(source), "-o", str(target)]
    return subprocess.run(command, cwd=bundle_root(), env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of two studies, of which the second is damaged: voxels and affine of the first, the process, its output."""
    seed = int(os.environ.get("TEST_SEED") or np.random.SeedSequence().entropy % 2**31)
    print(f"TEST_SEED={seed}")
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("deploy")
    voxels, affine = np.zeros((12, 14, 11), np.uint16), dicom_series.random_affine(rng, SPACING)
    voxels[3:9, 3:11, 3:8] = rng.integers(300, 1200, (6, 8, 5))
    dicom_series.write_series(folder / "in" / "whole", voxels, affine, PatientID="whole", SeriesDescription="T1 mprage")
    torn = dicom_series.write_series(folder / "in" / "torn", voxels, affine, PatientID="torn", SeriesDescription="T1 mprage")
    torn[5].write_bytes(torn[5].read_bytes()[:-100])
    return voxels, affine, run_app(folder / "in", folder / "out"), folder / "out"


def test_the_derived_series_keeps_every_measured_voxel_in_its_place(run):
    voxels, affine, process, out = run
    slices = [pydicom.dcmread(file) for file in out.glob("*/pred/*.dcm")]
    assert len(slices) == 7 * voxels.shape[2], process.stderr[-2000:]
    total, count, squares = (np.zeros(voxels.shape) for _ in range(3))
    for image in slices:
        across, down = np.reshape([float(x) for x in image.ImageOrientationPatient], (2, 3))
        rows, columns = np.indices(image.pixel_array.shape)
        place = np.array([float(x) for x in image.ImagePositionPatient])[:, None, None]
        place = place + across[:, None, None] * columns * float(image.PixelSpacing[1])
        place = place + down[:, None, None] * rows * float(image.PixelSpacing[0])
        world = LPS @ np.concatenate([place, np.ones_like(place[:1])]).reshape(4, -1)
        index = tuple(np.rint(np.linalg.solve(affine, world)[:3]).astype(int))
        values = (image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)).ravel()
        for sums, addend in ((total, values), (count, 1), (squares, values**2)):
            np.add.at(sums, index, addend)
    assert (count == 6 * 7 * 7).all()
    # float32, then 16 bits over the range of the result
    np.testing.assert_allclose(total / count, voxels, rtol=0, atol=1e-3 * voxels.max())
    assert (squares / count - (total / count) ** 2).max() > 1.0  # the network did add something within the blocks


def test_a_damaged_study_is_named_and_the_other_one_done(run):
    _, _, process, out = run
    assert process.returncode == 2
    assert "0006.dcm, which is cut short" in process.stdout + process.stderr
    assert sorted(path.name for path in out.iterdir()) == ["identifiers.json", "study-002"]
    assert json.loads((out / "identifiers.json").read_text())["study-002"]["patient_id"] == "whole"


def test_input_without_dicom_is_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    process = run_app(tmp_path / "in", tmp_path / "out")
    assert process.returncode == 1
    assert process.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "no volume or DICOM file" in process.stderr
    assert not list(tmp_path.glob("out/*"))


def test_the_configuration_chooses_task_and_series(tmp_path, rng):
    for name, value in (("first", 500), ("second", 900)):
        voxels = np.zeros((12, 12, 12), np.uint16)
        voxels[3:9, 3:9, 3:9] = rng.integers(value, value + 100, (6, 6, 6))
        dicom_series.write_series(
            tmp_path / "in" / name, voxels, np.diag([4.0, 4, 4, 1]), PatientID="one", SeriesDescription=f"T1 {name}",
            StudyInstanceUID="2.25.11", SeriesInstanceUID=f"2.25.{value}", FrameOfReferenceUID="2.25.12",
        )  # fmt: skip
    settings = tmp_path / "app.yaml"
    settings.write_text("bundle: {configs: [inference.yaml], options: {series_rules: {t1: second}, consistency: false}}")
    process = run_app(tmp_path / "in", tmp_path / "out", HOLOSCAN_CONFIG_PATH=str(settings))
    images = [pydicom.dcmread(file) for file in tmp_path.glob("out/*/pred/*.dcm")]
    assert process.returncode == 0, process.stderr[-2000:]
    assert {image.SourceImageSequence[0].ReferencedSOPInstanceUID for image in images} <= {
        pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "in" / "second").iterdir()
    }
