# SPDX-License-Identifier: Apache-2.0
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.errors import BadInput
from scripts.experiments.run import experiment, steps_of
from scripts.experiments.systems import EXPERIMENTS, GROUPS, PATTERNS, SYSTEMS, TRAININGS

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of code in configs, at every run
TINY = {"size": "tiny", "precision": "float32", "logging_file": False}


@pytest.fixture
def data(tmp_path, rng):
    for case in range(2):
        voxels = np.zeros((32, 32, 36), dtype=np.float32)
        voxels[8:24, 8:24, 8:28] = rng.uniform(300, 900, (16, 16, 20))
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"case{case}_t1.nii.gz")
    return str(tmp_path)


def test_every_line_of_the_table_refers_to_others():
    assert {name for experiment in EXPERIMENTS.values() for name in experiment.systems} == set(SYSTEMS)
    assert {system.weights for system in SYSTEMS.values()} <= TRAININGS.keys() | GROUPS.keys()
    assert {training.members for training in TRAININGS.values()} <= {"", *GROUPS}
    assert {training.start for training in TRAININGS.values()} <= {"", *TRAININGS}
    assert GROUPS.keys() == PATTERNS.keys()
    assert not GROUPS.keys() & TRAININGS.keys()
    assert {name for group in GROUPS.values() for name in group} <= TRAININGS.keys()


def test_systems_are_trained_once_measured_and_tabulated_and_a_second_run_goes_on(data, tmp_path, capsys):
    asked = {"plane_steps": 1, "volume_steps": 1}
    experiment("super_resolution", data, str(tmp_path / "out"), systems=["tpdm"], options=TINY, **asked)
    experiment("super_resolution", data, str(tmp_path / "out"), systems=["tpdm", "ours_tpdm"], options=TINY, **asked)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("training ")] == [
        *(f"training plane_{plane}, 1 steps" for plane in ("coronal", "sagittal")), "training tpdm, 1 steps"
    ]  # fmt: skip
    folder = tmp_path / "out" / "systems"
    results = {name: json.loads((folder / f"{name}_1" / "results.json").read_text()) for name in ("tpdm", "ours_tpdm")}
    assert [results[name]["system"]["fusion"] for name in results] == [False, True]
    assert [results[name]["system"].get("volumes") for name in results] == [None, False]
    days = [results[name]["system"]["training_days"] for name in results]
    trained = [torch.load(folder.parent / "trainings" / name / "latest.pt", weights_only=True)["seconds"]
               for name in ("plane_coronal", "plane_sagittal", "tpdm")]  # fmt: skip
    assert days == pytest.approx([sum(trained[:2]) / 86400, sum(trained) / 86400])
    table = (tmp_path / "out" / "tables.md").read_text()
    for name, content in results.items():
        assert name.replace("_", r"\_") in table  # Markdown
        assert f"{content['mean']['psnr']:.2f}" in table
    with pytest.raises(BadInput, match=r"plane_coronal: was made with .*'steps': 1.* not .*'steps': 2"):
        experiment("super_resolution", data, str(tmp_path / "out"), systems=["tpdm"], options=TINY, plane_steps=2)


def test_systems_are_asked_for_every_number_of_steps_that_makes_sense_for_them():
    asked = {name: steps_of(SYSTEMS[name], [1, 10]) for name in ("tpdm", "u_net_3d", "tpdm_alternate")}
    assert asked == {"tpdm": [1, 10], "u_net_3d": [1], "tpdm_alternate": [10]}


def test_options_are_for_all_workflows_or_for_one(data, tmp_path):
    options = {**TINY, "train_2d": {"batch_size": 2}, "evaluate": {"mask": "t1"}}
    experiment("super_resolution", data, str(tmp_path), systems=["palette"], options=options, plane_steps=1)
    made = json.loads((tmp_path / "trainings" / "plane_axial" / "done.json").read_text())
    assert made["options"] == {**TINY, "batch_size": 2}
    assert "psnr_tumour" in json.loads((tmp_path / "systems" / "palette_1" / "results.json").read_text())["mean"]


def test_a_smaller_fusion_goes_on_from_patches_to_volumes(data, tmp_path):
    folder = tmp_path / "out"
    experiment("ablations", data, str(folder), systems=["ablation_small"], options=TINY, plane_steps=1, volume_steps=1)
    files = (folder / "trainings" / name / "latest.pt" for name in ("small", "small_volumes"))
    first, second = (torch.load(file, weights_only=True)["objects"] for file in files)
    moved = [key for key, value in second["network"].items() if not torch.equal(value, first["ema"][key])]
    assert moved
    assert all(key.startswith("fusion.") for key in moved)
    results = json.loads((folder / "systems" / "ablation_small_1" / "results.json").read_text())
    assert (results["n"], results["system"]["volumes"]) == (1, True)


@pytest.mark.parametrize(("name", "systems", "message"), [
    ("nothing", None, "no experiment 'nothing'; choose one of super_resolution"),
    ("both", ["magic"], "no system 'magic'; choose from pix2pix"),
])  # fmt: skip
def test_unknown_names_are_refused(name, systems, message, data, tmp_path):
    with pytest.raises(BadInput, match=message):
        experiment(name, data, str(tmp_path / "out"), systems=systems)
    assert not (tmp_path / "out").exists()
