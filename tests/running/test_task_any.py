# SPDX-License-Identifier: Apache-2.0
"""Task any from the command line: trained on a datalist, and a scan whose header says its slices."""

import json

import nibabel as nib
import numpy as np
import pytest

from scripts.__main__ import main
from scripts.measurement.slices import Slices

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32"]


@pytest.fixture
def trained(rng, tmp_path):
    """Tiny weights of task any: one plane of one step, which serves both planes of a fusion of one step."""
    voxels = np.zeros((40, 44, 48), dtype=np.float32)
    voxels[6:-6, 6:-6, 6:-6] = rng.uniform(50, 200, (28, 32, 36))
    for case in ("a", "b"):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "data" / f"{case}_t1.nii.gz")
    assert main(["scans", str(tmp_path / "scans.json"), "--of", "volume", str(tmp_path / "data"), "t1", "2"]) == 0
    once = ["max_epochs=1", "steps_per_epoch=1", "batch_size=1", "split_train=all", "split_val=all", "val_cases=1"]
    settings = [f"datalist={tmp_path / 'scans.json'}", "simulated=[1, 1, 3.5]", *once]
    common = ["--task", "any", "--overlays", "scans_any", *TINY, *(word for one in settings for word in ("--set", one))]
    plane, fusion = tmp_path / "plane", tmp_path / "fusion"
    data = str(tmp_path / "data")
    assert main(["train", data, "-o", str(plane), "--plane", "coronal", *common, "--set", "patch=[24, 24]"]) == 0
    own = ["--planes", str(plane / "latest.pt"), "--set", "shared_planes=True", "--set", "patch=[20, 20, 20]"]
    assert main(["train", data, "-o", str(fusion), *common, *own]) == 0
    return fusion / "latest.pt"


@pytest.fixture(autouse=True)
def folders(tmp_path):
    (tmp_path / "data").mkdir()


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


def test_an_evaluation_measures_what_it_simulates(trained, tmp_path):
    options = ["--task", "any", "--weights", str(trained), "--split", "all", "--set", "simulated=[1, 1, 3.5]", *TINY]
    assert main(["evaluate", str(tmp_path / "data"), "-o", str(tmp_path / "out"), *options]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["n"] == 2 and results["mean"]["measurement_error"] < 1e-6
    assert results["task"]["title"] == "slices 1x1x3.5 of t1"


def test_other_tasks_know_no_spacing(tmp_path, capsys):
    nib.save(nib.Nifti1Image(np.random.default_rng().random((24, 24, 24)), np.diag([4, 4, 4, 1])), tmp_path / "a_t1.nii.gz")
    assert main(["restore", str(tmp_path / "a_t1.nii.gz"), "-o", str(tmp_path / "out"), "--spacing", "1"]) == 1
    assert "'spacing' is not in inference.yaml" in capsys.readouterr().err
