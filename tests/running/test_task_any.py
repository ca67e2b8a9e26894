# SPDX-License-Identifier: Apache-2.0
"""Task any from the command line: trained on a datalist, and a scan whose header says its slices."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scipy.ndimage import gaussian_filter

from scripts.__main__ import main
from scripts.measurement.slices import Slices

sys.path.append(str(Path(__file__).parents[1] / "data" / "dicom"))
from dicom_series import random_affine, write_series

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two volumes in `data`, listed in `scans.json`."""
    folder, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(0)
    voxels = np.zeros((40, 44, 48), dtype=np.float32)
    voxels[6:-6, 6:-6, 6:-6] = rng.uniform(50, 200, (28, 32, 36))
    (folder / "data").mkdir()
    for case in ("a", "b"):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "data" / f"{case}_t1.nii.gz")
    assert main(["scans", str(folder / "scans.json"), "--of", "volume", str(folder / "data"), "t1", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """Tiny weights of task any: one plane of one step, which serves both planes of a fusion of one step."""
    once = ["max_epochs=1", "steps_per_epoch=1", "batch_size=1", "split_train=all", "split_val=all", "val_cases=1"]
    settings = [f"datalist={folder / 'scans.json'}", "simulated=[1, 1, 3.5]", *once]
    common = ["--task", "any", "--overlays", "scans_any", *TINY, *(word for one in settings for word in ("--set", one))]
    plane, fusion, data = folder / "plane", folder / "fusion", str(folder / "data")
    assert main(["train", data, "-o", str(plane), "--plane", "coronal", *common, "--set", "patch=[24, 24]"]) == 0
    own = ["shared_planes=True", "train_planes=0.25", "patch=[20, 20, 20]"]
    chosen = ["--planes", str(plane / "latest.pt"), *(word for one in own for word in ("--set", one))]
    assert main(["train", data, "-o", str(fusion), *common, *chosen]) == 0
    return fusion / "latest.pt"


def test_a_thick_scan_of_any_contrast_is_kept_exactly_by_weights_of_ones_own(trained, rng, tmp_path):
    thick = rng.uniform(100, 900, (24, 26, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(thick, np.diag([1, 1, 4.2, 1])), tmp_path / "anna_flair.nii.gz")
    out = tmp_path / "out"
    options = ["--task", "any", "--contrast", "flair", "--thickness", "3.5", "--weights", str(trained), *TINY]
    assert main(["restore", str(tmp_path / "anna_flair.nii.gz"), "-o", str(out), *options]) == 0
    result = nib.load(out / "anna" / "anna_pred.nii.gz")
    axis = Slices.covering(9, 4.2, 3.5)
    assert result.shape == (24, 26, axis.voxels)
    np.testing.assert_allclose(result.get_fdata() @ axis.matrix().T, thick, atol=900e-5)
    task = json.loads((out / "run.json").read_text())["task"]
    assert (task["conditions"], task["target"], task["scanned"]["thickness"]) == (["flair"], "flair", 3.5)
    assert main(["report", str(out)]) == 0


def test_an_evaluation_measures_what_it_simulates(trained, folder, tmp_path):
    options = ["--task", "any", "--weights", str(trained), "--split", "all", "--set", "simulated=[1, 1, 3.5]", *TINY]
    assert main(["evaluate", str(folder / "data"), "-o", str(tmp_path / "out"), *options]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["n"] == 2 and results["mean"]["measurement_error"] < 1e-6
    assert results["task"]["title"] == "slices 1x1x3.5 of t1"


def test_other_tasks_know_no_spacing(tmp_path, capsys):
    nib.save(nib.Nifti1Image(np.random.default_rng().random((24, 24, 24)), np.diag([4, 4, 4, 1])), tmp_path / "a_t1.nii.gz")
    assert (
        main(
            [
                "restore",
                str(tmp_path / "a_t1.nii.gz"),
                "-o",
                str(tmp_path / "out"),
                "--task",
                "super_resolution",
                "--spacing",
                "1",
            ]
        )
        == 1
    )
    assert "'spacing' is not in inference.yaml" in capsys.readouterr().err


def test_what_random_scans_were_is_noted_beside_weights(trained, folder, rng, tmp_path):
    """And noise everywhere is doubted."""
    weights = tmp_path / "my_any.pt"
    assert main(["export", str(trained), str(weights)]) == 0
    assert main(["seen", str(folder / "scans.json"), str(weights), "--task", "any"]) == 0
    content = json.loads((tmp_path / "my_any.seen.json").read_text())
    assert content["volumes"] == 10 and list(content["conditions"]) == ["the scan"]
    nib.save(nib.Nifti1Image(rng.normal(500, 100, (32, 32, 10)), np.diag([1, 1, 4, 1])), tmp_path / "noise.nii.gz")
    options = ["-o", str(tmp_path / "out"), "--task", "any", "--weights", str(weights), *TINY]
    assert main(["restore", str(tmp_path / "noise.nii.gz"), *options]) == 0
    doubts = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]["noise"]["doubts"]
    assert any("the scan is unlike what the weights saw" in line for line in doubts)


def test_scans_in_different_planes_become_one_volume_that_keeps_them_all(trained, rng, tmp_path, capsys):
    truth = np.zeros((40, 40, 40), dtype=np.float32)
    truth[6:-6, 6:-6, 6:-6] = gaussian_filter(rng.uniform(0, 4000, (28, 28, 28)), 1.5)
    axial, coronal = np.diag([1.0, 1, 4, 1]), np.diag([1.0, 4, 1, 1])
    axial[2, 3] = coronal[1, 3] = 1.5
    nib.save(nib.Nifti1Image(truth.reshape(40, 40, 10, 4).mean(3), axial), tmp_path / "ax.nii.gz")
    thick = truth.reshape(40, 10, 4, 40).mean(2) / 3  # in units of its own
    nib.save(nib.Nifti1Image(thick, coronal), tmp_path / "cor.nii.gz")
    out, options = tmp_path / "out", ["--task", "any", "--weights", str(trained), *TINY]
    assert main(["combine", str(tmp_path / "ax.nii.gz"), str(tmp_path / "cor.nii.gz"), "-o", str(out), *options]) == 0
    content = json.loads((out / "combined.json").read_text())
    assert content["scans"][1]["gain"] == pytest.approx(3, rel=0.1) and content["scans"][1]["mm"] < 1.5
    assert all(scan["missed"][1] < scan["missed"][0] and scan["missed"][1] < 0.03 for scan in content["scans"])
    for scan in content["scans"]:  # what was doubted of a scan is doubted of the whole
        assert scan["weights"] == Path(trained).name
        doubt = f"{scan['scan']}: does not say how thick its slices are"
        assert [line for line in content["doubts"] if line.startswith(doubt)], content["doubts"]
    one, both = (nib.load(path) for path in (next(out.glob("scans/1/*/*_pred.nii.gz")), out / "combined.nii.gz"))
    assert one.shape == both.shape and np.array_equal(one.affine, both.affine)
    errors = [float(np.sqrt(((image.get_fdata()[..., :40] - truth) ** 2).mean())) for image in (one, both)]
    assert errors[1] < 0.7 * errors[0]
    assert main(["combine", str(tmp_path / "ax.nii.gz"), "-o", str(out), *options]) == 1
    assert "1 scan: two and more are combined; restore takes one" in capsys.readouterr().err


def test_dicom_scans_become_a_series_of_their_study(trained, rng, tmp_path):
    """Its sources are the images of both."""
    affines = [random_affine(rng, spacing=(1.0, 1.0, 4.0))] * 2
    uid = generate_uid()
    truth = gaussian_filter(rng.uniform(0, 4000, (28, 28, 8)), 1).astype(np.uint16)
    for name, affine in zip("ab", affines, strict=True):
        write_series(tmp_path / name, truth, affine, SeriesDescription="t1 tse", StudyInstanceUID=uid, PatientID="p")
    out, options = tmp_path / "out", ["--task", "any", "--weights", str(trained), *TINY]
    assert main(["combine", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(out), *options]) == 0
    images = [pydicom.dcmread(path) for path in sorted((out / "combined").glob("*.dcm"))]
    assert len(images) == nib.load(out / "combined.nii.gz").shape[2] > 8
    assert "planes adapted" not in images[0].DerivationDescription
    assert images[0].StudyInstanceUID == uid and "2 scans of t1 combined" in images[0].SeriesDescription
    sources = {item.ReferencedSOPInstanceUID for item in images[0].SourceImageSequence}
    given = {pydicom.dcmread(path).SOPInstanceUID for path in tmp_path.glob("[ab]/*.dcm")}
    assert sources == given


def test_scans_that_do_not_overlap_are_not_combined(trained, rng, tmp_path, capsys):
    affine = np.diag([1.0, 1, 4, 1])
    nib.save(nib.Nifti1Image(rng.uniform(1, 9, (24, 24, 8)), affine), tmp_path / "a.nii.gz")
    affine[:3, 3] = 500
    nib.save(nib.Nifti1Image(rng.uniform(1, 9, (24, 24, 8)), affine), tmp_path / "b.nii.gz")
    options = ["-o", str(tmp_path / "out"), "--task", "any", "--weights", str(trained), *TINY]
    assert main(["combine", str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz"), *options]) == 1
    assert "b_pred.nii.gz" in (line := capsys.readouterr().err) and "register" in line
    assert not (tmp_path / "out" / "combined.nii.gz").exists()
