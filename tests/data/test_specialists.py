# SPDX-License-Identifier: Apache-2.0
"""Which weights answer: a specialist's where all is as they saw it, those for all scans where anything is not."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data import ChooseWeightsd, LoadVolumesd
from scripts.data import specialists as module
from scripts.data.seen import properties, write_seen
from scripts.data.specialists import SPECIALIST, Specialist, is_shipped
from scripts.errors import BadInput
from scripts.files import sha256, write_json
from scripts.measurement import AsScanned

TASK, THICK = "super_resolution", "super_resolution_thick_slice"
SEED = 7


def smooth(rng, shape=(30, 34, 26)):
    """A head of about the same shape every time, textured anew, with air of zero around it."""
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, side) for side in shape), indexing="ij")
    head = sum(axis**2 for axis in axes) < 1
    return np.where(head, rng.uniform(400, 600, shape), 0).astype(np.float32)


@pytest.fixture
def rng():
    """Draws first what specialists saw first: of heads drawn anew a few are unlike thirty others."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Weights of both specialists and for all scans, which have seen heads as `smooth` draws them; of the last one nothing."""
    folder, rng = tmp_path_factory.mktemp("bundle") / "models", np.random.default_rng(SEED)
    folder.mkdir()
    for name, task, spacing in (("model", TASK, [4, 4, 4]), ("thick_slice", THICK, [1, 1, 4])):
        torch.save({"of": name}, folder / f"{name}.pt")
        write_seen(folder / f"{name}.pt", task, {"t1": np.array([properties(smooth(rng), spacing) for _ in range(30)])})
    torch.save({}, folder / "any.pt")
    write_json(folder / "checksums.json", {"any.pt": sha256(folder / "any.pt")})
    return folder


@pytest.fixture
def bundle(models, monkeypatch):
    """These in place of those that ship."""
    of = module.asked_of
    there = {TASK: models / "model.pt", THICK: models / "thick_slice.pt"}
    monkeypatch.setattr(module, "asked_of", lambda task: (of(task)[0], of(task)[1]._replace(weights=str(there[task[0]]))))
    monkeypatch.setattr(module, "bundle_root", lambda: str(models.parent))
    return models


def chosen(folder, voxels, affine, weights, beside=None, **options):
    """What meta says of a scan, "" where no specialist is named, and how many doubts there are about it."""
    file = folder / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), file)
    if beside:
        (folder / "scan.json").write_text(json.dumps(beside))
    case = LoadVolumesd(["image"], degradation := AsScanned())({"image": [str(file)]})
    image = ChooseWeightsd(weights, degradation, [TASK, THICK], **options)(case)["image"]
    return image.meta.get(SPECIALIST, ""), len(json.loads(image.meta.get("unseen", "[]")))


@pytest.mark.parametrize(("voxel", "task"), [([4, 4, 4], TASK), ([1, 1, 4], THICK)])
def test_a_scan_like_those_that_a_specialist_saw_is_its_own(bundle, rng, tmp_path, voxel, task):
    affine = np.diag([*voxel, 1.0])
    beside = {"SliceThickness": 4.0}
    assert chosen(tmp_path, smooth(rng), affine, bundle / "any.pt", beside) == (task, 0)


def test_where_anything_is_otherwise_the_weights_for_all_scans_answer(bundle, rng, tmp_path):
    cubes, thick, own = np.diag([4.0, 4, 4, 1]), np.diag([1.0, 1, 4, 1]), bundle / "any.pt"
    noisy = np.abs(rng.normal(500, 200, (30, 34, 26))).astype(np.float32)
    across = np.diag([1.0, 4, 1, 1])
    gap = {"SliceThickness": 3.0}
    mine = tmp_path / "mine.pt"
    shutil.copy(own, mine)
    others = [
        (noisy, cubes, own, None, {}),
        (smooth(rng), np.diag([2.0, 2, 2, 1]), own, None, {}),
        (smooth(rng), thick, own, gap, {}),
        (smooth(rng), across, own, None, {}),
        (smooth(rng), cubes, mine, None, {}),
        (smooth(rng), cubes, own, None, {"adapt": 1.0}),
    ]
    for voxels, affine, weights, beside, options in others:
        folder = tmp_path / str(rng.integers(1 << 60))
        folder.mkdir()
        assert chosen(folder, voxels, affine, weights, beside, **options)[0] == ""


def test_a_copy_of_weights_that_ship_gives_way_too_and_others_of_their_name_do_not(bundle, rng, tmp_path):
    cubes, copy = np.diag([4.0, 4, 4, 1]), tmp_path / "any.pt"
    shutil.copy(bundle / "any.pt", copy)
    assert chosen(tmp_path, smooth(rng), cubes, copy)[0] == TASK
    torch.save({"of": "mine"}, copy)
    assert chosen(tmp_path, smooth(rng), cubes, copy)[0] == ""


def test_steps_that_a_specialist_does_not_bear_leave_it_out(bundle, rng, tmp_path, monkeypatch):
    def bears_two(weights, *, steps):
        if steps > 2:
            raise BadInput("no")

    monkeypatch.setattr(module, "limits_of", bears_two)
    cubes = np.diag([4.0, 4, 4, 1])
    assert chosen(tmp_path, smooth(rng), cubes, bundle / "any.pt", steps=2)[0] == TASK
    assert chosen(tmp_path, smooth(rng), cubes, bundle / "any.pt", steps=3)[0] == ""


def test_a_task_of_which_nothing_is_known_cannot_be_chosen(models, bundle, monkeypatch):
    monkeypatch.setattr(module, "read_seen", lambda weights: {})
    with pytest.raises(BadInput, match="nothing says what its weights saw"):
        Specialist.of(TASK)


def test_the_specialists_that_ship_are_found():
    for task, blocks in ((TASK, (4, 4, 4)), (THICK, (1, 1, 4))):
        one = Specialist.of(task)
        assert (one.blocks, one.condition) == (blocks, "t1") and is_shipped(one.weights)
