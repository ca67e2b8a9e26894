# SPDX-License-Identifier: Apache-2.0
"""The loader and the extension's model against stand-ins for what Slicer gives them; Slicer itself is not run here."""

import importlib.util
import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import yaml

from scripts import bundle_root
from scripts.integrations.slicer import install as installer
from scripts.integrations.slicer.load_result import GREY, MAGMA, find_layers, shown_range
from scripts.limits import limits_of

ROOT = Path(bundle_root())
TILT = 3.9 / 4, np.sqrt(1 - (3.9 / 4) ** 2)
OBLIQUE = np.array([[0, 4 * TILT[1], 4.2 * TILT[0], -20], [-4, 0, 0, 30], [0, 4 * TILT[0], -4.2 * TILT[1], 10], [0, 0, 0, 1]])


def save(voxels, path, affine=OBLIQUE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(voxels, dtype=np.float32), affine), path)
    return path


# The loader


def test_input_result_and_uncertainty_become_the_rows(tmp_path):
    image = save(np.ones((5, 5, 5)), tmp_path / "in" / "a_t1.nii.gz")
    for name in ("pred", "uncertainty"):
        save(np.ones((5, 5, 5)), tmp_path / "a" / f"a_{name}.nii.gz")
    layers = find_layers(tmp_path / "a", image)
    assert [layer.path.name for layer in layers] == ["a_t1.nii.gz", "a_pred.nii.gz", "a_uncertainty.nii.gz"]
    assert [layer.colours for layer in layers] == [GREY, GREY, MAGMA]


@pytest.mark.parametrize(("result", "image"), [(False, None), (True, "nowhere.nii.gz")])
def test_what_is_missing_is_named(tmp_path, result, image):
    if result:
        save(np.ones((5, 5, 5)), tmp_path / "a_pred.nii.gz")
    with pytest.raises(FileNotFoundError, match="nowhere.nii.gz: there is no such" if image else "holds no result"):
        find_layers(tmp_path, image and tmp_path / image)


def test_the_window_reaches_from_the_background_to_nearly_the_brightest(tmp_path, rng):
    save(np.ones((5, 5, 5)), tmp_path / "a_pred.nii.gz")
    save(np.ones((5, 5, 5)), tmp_path / "a_uncertainty.nii.gz")
    result, uncertainty = find_layers(tmp_path)
    head = np.full((60, 50, 40), -20.0)
    head[2:-2, 2:-2, 2:-2] = rng.uniform(0, 100, (56, 46, 36))
    head[2, 2, 2] = -50  # a single voxel is no background
    assert shown_range(result, head) == pytest.approx((-20, 99.9), abs=0.1)  # quantiles of a uniform distribution
    assert shown_range(uncertainty, np.maximum(head, 0)) == pytest.approx((0, 99), abs=0.5)


# The extension's model


class Node:
    """A volume node of Slicer, as far as models use it."""

    def __init__(self, array=None, affine=None):
        self.array, self.affine = array, affine

    def GetIJKToRASMatrix(self, matrix):
        matrix[:] = self.affine

    def SetIJKToRASMatrix(self, matrix):
        self.affine = matrix


class PlainNode:
    """A node in the worker process of the extension: an array without a place in space."""

    def __init__(self, array=None):
        self.array = array


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """The module's folder with one model in it, and stand-ins for `slicer`, `vtk` and the extension's library."""
    folder = tmp_path / "ModalityConverter"
    (folder / "Resources" / "Models").mkdir(parents=True)
    (folder / "Resources" / "Models" / "metadata.json").write_text(json.dumps({"theirs": {"module_name": "TheirModel"}}))
    (folder / "ModalityConverterLib" / "ModelsImpl").mkdir(parents=True)
    registry = {}
    library, base = ModuleType("ModalityConverterLib"), ModuleType("ModalityConverterLib.ModelBase")
    base.BaseModel = type("BaseModel", (), {"__init__": lambda self, key, device="cpu": None})
    base.register_model = lambda key: lambda cls: registry.setdefault(key, cls)
    slicer, vtk = ModuleType("slicer"), ModuleType("vtk")
    vtk.vtkMatrix4x4 = lambda: np.eye(4)
    slicer.util = SimpleNamespace(
        arrayFromVolume=lambda node: node.array,
        arrayFromVTKMatrix=np.array,
        vtkMatrixFromArray=np.array,
        updateVolumeFromArray=lambda node, array: setattr(node, "array", array),
        setSliceViewerLayers=lambda **_: None,
        warned=[],
        warningDisplay=lambda text: slicer.util.warned.append(text),
    )
    for module in (library, base, slicer, vtk):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return folder, registry


def model_of(extension, place):
    """The installed model class, loaded as the extension loads it."""
    folder, registry = extension
    (folder / "place.json").write_text(json.dumps(place))
    spec = importlib.util.spec_from_file_location("installed", folder / "ModalityConverterLib/ModelsImpl/ScoreFusionModel.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    model = registry["super_resolution_score_fusion"]("super_resolution_score_fusion")
    model.model = model._loadModelFromPath(str(folder / "place.json"))
    return model


def test_installing_twice_adds_our_tasks_once_beside_the_models_of_others(extension):
    folder, _ = extension
    assert installer.install(folder) == installer.install(folder)
    listed = json.loads((folder / "Resources" / "Models" / "metadata.json").read_text())
    assert listed["theirs"] == {"module_name": "TheirModel"}
    ours = listed["super_resolution_score_fusion"]
    assert ours["module_name"] == "ScoreFusionModel"
    assert "4x4x4 times as fine" in ours["description"]


def test_every_task_that_takes_one_volume_and_has_weights_is_listed_and_no_key_begins_another(extension):
    folder, registry = extension
    installed = installer.install(folder)
    listed = json.loads((folder / "Resources" / "Models" / "metadata.json").read_text())
    ours = {key: entry["display_name"] for key, entry in listed.items() if entry["module_name"] == "ScoreFusionModel"}
    wanted = []
    for file in sorted((ROOT / "configs").glob("task_*.yaml")):
        task = {
            "model_name": "model",
            **yaml.safe_load((ROOT / "configs" / "inference.yaml").read_text()),
            **yaml.safe_load(file.read_text()),
        }
        one = len(task["conditions"]) == 1 and "blocks" not in (task["degradation"] or {})
        weights = ROOT / "models" / f"{task['model_name']}.pt"
        if one and weights.is_file() and limits_of(weights).offered:
            wanted.append(f"{file.stem.removeprefix('task_')}_score_fusion")
    assert list(ours) == wanted
    assert list(ours.values()) == installed
    assert ours["super_resolution_score_fusion"] == "[Brain] Score-Fusion MRI super-resolution 4x4x4 of t1"
    assert "translation_score_fusion" in ours  # passes the gate (docs/gate.md)
    assert "cine_super_resolution_score_fusion" not in ours  # has seen one heart
    assert not [pair for pair in permutations(wanted, 2) if pair[0].startswith(pair[1])]
    model_of(extension, {})
    assert set(registry) == set(wanted)


def test_an_entry_of_0_6_keeps_its_key(extension):
    folder, registry = extension
    models = folder / "Resources" / "Models"
    key = "score_fusion_thick_slices"
    (models / "metadata.json").write_text(json.dumps({key: {"module_name": "ScoreFusionModel", "display_name": "before"}}))
    files = [str(ROOT / "configs" / name) for name in ("inference.yaml", "task_super_resolution_thick_slice.yaml")]
    (models / f"{key}.json").write_text(json.dumps({"configs": files, "block": [1, 1, 4]}))
    installer.install(folder)
    listed = json.loads((models / "metadata.json").read_text())
    assert listed[key]["display_name"].endswith("thick slice 1x1x4 of t1")
    assert "super_resolution_thick_slice_score_fusion" not in listed
    assert json.loads((models / f"{key}.json").read_text())["task"]["blocks"] == [[1, 1, 4]]
    model_of(extension, {})
    assert key in registry


def test_a_kill_while_the_list_is_written_leaves_the_earlier_one(extension, monkeypatch):
    folder, _ = extension
    listed = folder / "Resources" / "Models" / "metadata.json"
    before = listed.read_text()

    def killed(path, text, **_):
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        installer.install(folder)
    assert listed.read_text() == before
    assert not [path for path in folder.rglob("*.json") if path != listed]


def test_installing_into_another_folder_is_refused_in_one_line(tmp_path, capsys):
    assert installer.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: is not the module ModalityConverter")
    assert list(tmp_path.iterdir()) == []


def test_the_model_gives_the_finer_grid_to_the_node_and_keeps_the_measurement(extension, rng):
    folder, _ = extension
    installer.install(folder)
    place = json.loads((folder / "Resources" / "Models" / "super_resolution_score_fusion.json").read_text())
    coarse = np.zeros((12, 10, 11))
    coarse[3:9, 3:8, 3:9] = rng.uniform(300, 900, (6, 5, 6))
    source, result = Node(coarse.T, OBLIQUE), Node()
    # as the extension's worker calls it (inference_worker.py, 03f9f45)
    model_of(extension, place).runInference(inputVolume=source, inputMask=None, outputVolume=result, showAllFiles=True)
    blocks = result.array.T.reshape(12, 4, 10, 4, 11, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(blocks, coarse, atol=0.5)  # of 900; single precision
    corner = result.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(corner, OBLIQUE @ [-0.5, -0.5, -0.5, 1], atol=1e-4)  # the edges stay
    np.testing.assert_allclose(result.affine[:3, :3], OBLIQUE[:3, :3] / 4, atol=1e-5)
    (told,) = sys.modules["slicer"].util.warned
    assert told.startswith("t1 is unlike what the weights saw: ")  # noise is no brain


@pytest.mark.parametrize("doubts", [["never look for lesions in it", "slices are taken for 5 mm thick"], []])
def test_what_a_run_doubts_is_shown_line_by_line(extension, doubts, monkeypatch):
    def run(command, **_):
        out = Path(command[command.index("--output_dir") + 1])
        save(np.ones((4, 4, 4)), out / "volume" / "volume_pred.nii.gz")
        (out / "run.json").write_text(
            json.dumps({"cases": {"volume": {"seconds": 1.0, **({"doubts": doubts} if doubts else {})}}})
        )
        return subprocess.CompletedProcess(command, 0)

    installer.install(extension[0])
    model = model_of(extension, {"python": "", "bundle": "", "configs": []})
    monkeypatch.setattr(subprocess, "run", run)
    model.runInference(Node(np.ones((4, 4, 4)), OBLIQUE), Node())
    assert sys.modules["slicer"].util.warned == (["\n".join(doubts)] if doubts else [])


@pytest.mark.parametrize("task", ["super_resolution", "any", "translation"])
def test_voxels_without_their_size_are_sent_to_the_loader(extension, task):
    folder, _ = extension
    installer.install(folder)
    model = model_of(extension, json.loads((folder / "Resources" / "Models" / f"{task}_score_fusion.json").read_text()))
    with pytest.raises(RuntimeError, match=r"without their size; run the bundle on the file and load the result"):
        model.runInference(PlainNode(np.ones((5, 5, 5))), PlainNode())


def test_what_is_wrong_with_weights_stands_in_the_description(extension):
    folder, _ = extension
    installer.install(folder)
    listed = json.loads((folder / "Resources" / "Models" / "metadata.json").read_text())
    caveat = limits_of(ROOT / "models" / "translation.pt").caveat
    assert caveat and caveat in listed["translation_score_fusion"]["description"]
    assert "not for diagnosis.</b>" in listed["any_score_fusion"]["description"]


def test_a_refusal_of_the_bundle_reaches_the_user_in_its_line(extension):
    installer.install(extension[0])
    configs = [str(ROOT / "configs" / "inference.yaml")]
    model = model_of(extension, {"python": sys.executable, "bundle": str(ROOT), "configs": configs})
    with pytest.raises(RuntimeError, match="every voxel is 1"):
        model.runInference(Node(np.ones((8, 8, 8)), np.eye(4)), Node())


def test_the_loader_needs_nothing_but_numpy():
    code = "import sys; sys.modules.update(dict.fromkeys(['torch', 'monai', 'nibabel', 'scripts'])); import load_result"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts" / "integrations" / "slicer", check=True)
