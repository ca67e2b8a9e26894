# SPDX-License-Identifier: Apache-2.0
"""A specialist that is named answers as in a run of its own task; records say whose weights they were."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.__main__ import main
from scripts.data import provenance, write
from scripts.data.seen import Seen
from scripts.data.specialists import SPECIALIST, Specialist
from scripts.inferers import backend
from scripts.measurement import AsScanned, Task
from scripts.measurement.as_scanned import meta_of
from scripts.measurement.slices import Slices
from scripts.running.workflow import config_files, load_config, task_config

pytestmark = pytest.mark.filterwarnings("ignore")
TASK = "super_resolution"


@pytest.fixture
def all_is_alike(monkeypatch):
    """Any scan is like what specialists saw."""
    monkeypatch.setattr(Seen, "like", lambda self, found: True)


def scan(rng, folder):
    """Ten voxels of 4 mm a side."""
    voxels = rng.uniform(100, 900, (10, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), folder / "a_t1.nii.gz")
    return folder / "a_t1.nii.gz"


def test_a_run_of_task_any_gives_the_specialists_bytes_and_says_so(all_is_alike, rng, tmp_path, capsys):
    file = scan(rng, tmp_path)
    float32 = ["--set", "precision=float32"]
    assert main(["restore", str(file), "-o", str(tmp_path / "any"), *float32]) == 0
    assert " with any.pt, model.pt where it saw such scans: 1 case, " in capsys.readouterr().out
    assert main(["restore", str(file), "-o", str(tmp_path / "own"), "--task", TASK, *float32]) == 0
    ours, own = (nib.load(tmp_path / name / "a" / "a_pred.nii.gz").get_fdata() for name in ("any", "own"))
    np.testing.assert_array_equal(ours, own)
    record = json.loads((tmp_path / "any" / "run.json").read_text())
    assert record["cases"]["a"]["weights"] == "model.pt" and record["model"]["file"] == "any.pt"
    assert record["specialists"][TASK] == json.loads((tmp_path / "own" / "run.json").read_text())["model"]["sha256"]
    lines = map(json.loads, (tmp_path / "any" / "ledger.jsonl").read_text().splitlines())
    assert [line["weights"] for line in lines if "case" in line] == ["model.pt"]


def test_an_evaluation_says_of_every_case_whose_weights_answered(all_is_alike, rng, tmp_path):
    (data := tmp_path / "data").mkdir()
    nib.save(nib.Nifti1Image(rng.uniform(100, 900, (24, 24, 24)).astype(np.float32), np.eye(4)), data / "a_t1.nii.gz")
    (data / "splits.csv").write_text("case,split\na,val\n")
    chosen = ["--task", "any", "--set", "simulated=[4, 4, 4]", "--set", "conditions=[t1]", "--set", "target=t1"]
    assert main(["evaluate", str(data), "-o", str(tmp_path / "out"), *chosen, "--set", "precision=float32"]) == 0
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["cases"]["a"]["weights"] == "model.pt" and np.isfinite(record["cases"]["a"]["psnr"])


def test_without_specialists_the_weights_for_all_answer(all_is_alike, rng, tmp_path, capsys):
    file = scan(rng, tmp_path)
    settings = ["--set", "specialists=null", "--set", "precision=float32"]
    assert main(["restore", str(file), "-o", str(tmp_path / "any"), *settings]) == 0
    record = json.loads((tmp_path / "any" / "run.json").read_text())
    assert "weights" not in record["cases"]["a"] and "specialists" not in record
    assert " with any.pt: 1 case, " in capsys.readouterr().out


def test_a_specialist_takes_the_steps_and_the_samples_of_the_run(rng):
    options = {"steps": 3, "samples": 2, "seed": 5, "precision": "float32"}
    config = load_config(config_files("inference", [task_config("any")]), options)
    axes = [Slices.covering(5, 4.0)] * 3
    voxels = torch.from_numpy(rng.uniform(1, 9, (1, 1, 5, 5, 5))).float().repeat_interleave(4, 2)
    voxels = voxels.repeat_interleave(4, 3).repeat_interleave(4, 4)
    volume = MetaTensor(voxels, meta={**meta_of(axes), SPECIALIST: [TASK]})
    asked = config.get_parsed_content("inferer")
    result = asked(volume, torch.nn.Identity(), case="x")  # the network that it is given is not asked
    own = load_config(config_files("inference", [task_config(TASK)]), options)
    expected = own.get_parsed_content("inferer")(voxels, own.get_parsed_content("network").eval(), case="x")
    torch.testing.assert_close(result.as_tensor() if isinstance(result, MetaTensor) else result, expected, rtol=0, atol=0)


def test_what_differs_in_a_specialists_numbers_is_a_doubt_of_the_run(all_is_alike, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(backend, "TOLERANCE", 1.0e-6)  # which no bfloat16 meets
    out = tmp_path / "any"
    assert main(["restore", str(scan(rng, tmp_path)), "-o", str(out), "--backend", "torch"]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["numbers"] == "float32" and record["cases"]["a"]["weights"] == "model.pt"
    assert any("more than 0%: computed in float32" in line for line in record["cases"]["a"]["doubts"])


def test_reading_a_specialist_leaves_the_log_of_a_run_alone():
    config = load_config(config_files("inference", [task_config("any")]))
    root, record = logging.getLogger(), logging.NullHandler()  # as a run's own, which collects warnings
    root.addHandler(record)
    before = root.handlers[:]
    assert config.get_parsed_content("inferer").expert(MetaTensor(torch.zeros(1, 1, 4, 4, 4), meta={SPECIALIST: TASK}))
    assert root.handlers == before


def test_dicom_is_told_the_specialists_weights(monkeypatch):
    weights = Specialist.of(TASK).weights
    written = []
    monkeypatch.setattr("scripts.data.dicom.write.write_series", lambda placed, path, files, made_by: written.append(made_by))
    monkeypatch.setattr(write, "whole", lambda path, remedy: nullcontext(path))
    meta = {"dicom_files": '["a.dcm"]', SPECIALIST: TASK}
    made_by = provenance.Provenance("any", "any.pt", 1, 1, 0, Task(["t1"], "t1", AsScanned()))
    write.write_dicom(MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta=meta), Path("x"), made_by)
    assert (written[0].weights, written[0].model) == (weights, "model")
