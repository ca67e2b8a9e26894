# SPDX-License-Identifier: Apache-2.0
import json
import shlex
import subprocess
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.experiments import experiment as module
from scripts.experiments import study
from scripts.experiments.experiment import experiment, steps_of
from scripts.experiments.systems import EXPERIMENTS, GROUPS, PATTERNS, SYSTEMS, TRAININGS

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of code in configs, at every run
TINY = {"size": "tiny", "precision": "float32", "train_2d": {"patch": [24, 24], "batch_size": 1}}


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


def test_systems_are_trained_once_measured_and_tabulated_and_a_second_run_goes_on(data, tmp_path, capsys, monkeypatch):
    asked, tiny = {"plane_steps": 1, "volume_steps": 1}, {**TINY, "train_3d": {"patch": [24, 24, 24]}}
    out = str(tmp_path / "out")
    experiment("super_resolution", data, out, systems=["tpdm"], options=tiny, **asked)
    experiment("super_resolution", data, out, systems=["tpdm", "ours_tpdm"], options=tiny, **asked)
    said = capsys.readouterr().out
    assert [line.removeprefix("running ") for line in said.splitlines() if line.startswith("running ")] == [
        "trainings/plane_coronal", "trainings/plane_sagittal", "systems/tpdm_1", "trainings/tpdm", "systems/ours_tpdm_1"
    ]  # fmt: skip
    folder = tmp_path / "out" / "systems"
    results = {name: json.loads((folder / f"{name}_1" / "results.json").read_text()) for name in ("tpdm", "ours_tpdm")}
    assert [results[name]["system"]["fusion"] for name in results] == [False, True]
    assert [results[name]["system"]["volumes"] for name in results] == [None, False]
    days = [results[name]["system"]["training_days"] for name in results]
    trained = [torch.load(folder.parent / "trainings" / name / "latest.pt", weights_only=True)["seconds"]
               for name in ("plane_coronal", "plane_sagittal", "tpdm")]  # fmt: skip
    assert days == pytest.approx([sum(trained[:2]) / 86400, sum(trained) / 86400])
    table = (tmp_path / "out" / "tables.md").read_text()
    for name, content in results.items():
        assert name.replace("_", r"\_") in table  # Markdown
        assert f"{content['mean']['psnr']:.2f}" in table
    monkeypatch.setattr(study, "run_workflow", lambda *_, **__: pytest.fail("something ran"))
    for changed, line in (
        ({}, None),
        ({"plane_steps": 2}, "trainings/plane_coronal: was made with setting steps_per_epoch = 1, not 2"),
        ({"options": {**tiny, "evaluate": {"mask": "seg"}}}, "systems/tpdm_1: was made with setting mask = None, not seg"),
        ({"options": {**tiny, "evaluate": {"max_cases": 1}}}, "systems/tpdm_1: was made with setting max_cases = None, not 1"),
    ):
        with pytest.raises(BadInput, match=line) if line else nullcontext():
            experiment("super_resolution", data, out, systems=["tpdm"], **{"options": tiny, **asked, **changed})
    voxels = nib.load(tmp_path / "case0_t1.nii.gz")
    nib.save(nib.Nifti1Image(voxels.get_fdata(dtype=np.float32) * 2, np.eye(4)), tmp_path / "case0_t1.nii.gz")
    with pytest.raises(BadInput, match=r"trainings/plane_coronal: was made with case case0 = .*; give --output another folder"):
        experiment("super_resolution", data, out, systems=["tpdm"], options=tiny, **asked)
    assert (tmp_path / "out" / "tables.md").read_text() == table


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"stepz": 4}, r"--options: 'stepz' is not in train_2d\.yaml"),
        ({"train_3d": {"learning_rat": 1e-3}}, r"--options: 'learning_rat' is not in train_3d\.yaml"),
        ({"evaluate": {"maks": "seg"}}, r"--options: 'maks' is not in evaluate\.yaml"),
        ({"evalaute": {"mask": "seg"}}, r"--options: 'evalaute' is not in train_2d\.yaml"),
        ({"evaluate": 3}, "--options: 'evaluate' is a workflow"),
        ({"batch_size": "two"}, "--options: --batch_size two is no number"),
        ({"evaluate": {"steps": 10}}, "--options: 'steps' of evaluate is for the experiment to set"),
        ({"cache_dir": "/fast"}, "--options: 'cache_dir' of train_2d is for the experiment to set"),
    ],
    ids=str,
)
def test_an_option_that_would_change_nothing_is_refused_before_the_first_training(options, line, data, tmp_path):
    with pytest.raises(BadInput, match=line):
        experiment("super_resolution", data, str(tmp_path / "out"), systems=["palette", "ours_tpdm"], options=options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def plan_alone(monkeypatch):
    """Experiments are planned and checked; nothing is trained."""
    monkeypatch.setattr(study, "find_cases", lambda **asked: [{"case": "a", "image": [], "label": "a_t1.nii"}])
    monkeypatch.setattr(study.Study, "run", lambda self, stage: None)
    monkeypatch.setattr(module, "tables", lambda *_, **__: None)


def test_make_results_asks_for_nothing_that_an_experiment_refuses(plan_alone, data, tmp_path):
    targets = ["both", "translation", "super_resolution", "thick_planes", "ablations"]
    make = ["make", "-n", "-f", "docs/results.mk", f"OUT={tmp_path / 'out'}", f"T1={data}", f"GLIOMA={data}", *targets]
    lines = subprocess.run(make, capture_output=True, text=True, check=True).stdout.splitlines()
    commands = [shlex.split(line.split("-m scripts ")[1]) for line in lines if "-m scripts " in line]
    assert {command[1] for command in commands} == set(targets)
    assert all(main(command) == 0 for command in commands)


@pytest.mark.parametrize("name", ["both", "ablations"])  # all systems
def test_no_line_of_the_table_has_a_key_that_changes_nothing(name, plan_alone, data, tmp_path):
    experiment(name, data, str(tmp_path / "out"), steps=[1, 10], options={"size": "published"})


def test_systems_are_asked_for_every_number_of_steps_that_makes_sense_for_them():
    asked = {name: steps_of(SYSTEMS[name], [1, 10]) for name in ("tpdm", "u_net_3d", "tpdm_alternate")}
    assert asked == {"tpdm": [1, 10], "u_net_3d": [1], "tpdm_alternate": [10]}


def test_options_are_for_all_workflows_or_for_one(data, tmp_path):
    options = {**TINY, "train_2d": {"batch_size": 2}, "evaluate": {"mask": "t1"}}
    experiment("super_resolution", data, str(tmp_path), systems=["palette"], options=options, plane_steps=1)
    made = json.loads((tmp_path / "trainings" / "plane_axial" / "stage.json").read_text())["setting"]
    assert (made["size"], made["precision"], made["batch_size"]) == ("tiny", "float32", "2")
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


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ({"steps": [1, 0]}, "--steps 0: a sampler needs at least 1 step"),
        ({"plane_steps": -1}, "--plane-steps -1: a training needs at least 1 step"),
        ({"volume_steps": 0}, "--volume-steps 0: a training needs at least 1 step"),
        ({"plane_steps": 99}, "--plane-steps 99: trainings are of whole epochs of 50 steps; give 50 or 100"),
    ],
    ids=str,
)
def test_numbers_of_steps_that_would_fail_or_not_be_kept_are_refused_before_the_first_training(numbers, line, data, tmp_path):
    with pytest.raises(BadInput, match=line):
        experiment("super_resolution", data, str(tmp_path / "out"), systems=["palette"], **numbers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "systems", "message"), [
    ("nothing", None, "no experiment 'nothing'; choose one of super_resolution"),
    ("both", ["magic"], "no system 'magic'; choose from pix2pix"),
])  # fmt: skip
def test_unknown_names_are_refused(name, systems, message, data, tmp_path):
    with pytest.raises(BadInput, match=message):
        experiment(name, data, str(tmp_path / "out"), systems=systems)
    assert not (tmp_path / "out").exists()
