# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from scripts.__main__ import main
from scripts.data.advice import Expectation, Grid, asked_of, plan
from scripts.data.volumes import LoadVolumesd
from scripts.errors import BadInput
from scripts.measurement import BlockAverage, ThickScans

CUBE, SLAB, NOTHING = [4, 4, 4], [1, 1, 4], []


def grid(*spacing, shape=(40, 48, 36)):
    return Grid(np.diag([*spacing, 1.0]), shape)


def expect(block, trained_mm=1.0, **options):
    return Expectation([block] if block else [], trained_mm, **options)


def planned(spacing, block, **options):
    return plan("x", [("a_t1.nii.gz", grid(*spacing))], expect(block, **options))


@pytest.mark.parametrize(
    ("spacing", "block", "line"),
    [
        ((1, 1, 1), CUBE, "its voxels of 1 x 1 x 1 mm would become 0.25 x 0.25 x 0.25 mm; it is fine already"),
        ((1, 1, 1), SLAB, "its voxels of 1 x 1 x 1 mm are no thick slices; it is fine already"),
        ((1, 1, 5), CUBE, "would become 0.25 x 0.25 x 1.25 mm; its slices are thick: --task super_resolution_thick_slice"),
        ((5, 0.9, 0.9), CUBE, "--task super_resolution_thick_slice, for T1w, makes 1.25 x 0.9 x 0.9 mm of them"),
        ((4, 4, 4), SLAB, "are no thick slices; --task super_resolution, for T1w, makes 1 x 1 x 1 mm of them"),
        ((1, 4, 4), SLAB, "are no thick slices; --task any takes such voxels"),
        ((1, 1, 1.6), SLAB, "would become 1 x 1 x 0.4 mm; it is fine already"),
        ((1, 1.3, 1), SLAB, "are no thick slices; it is fine already"),
    ],
)
def test_a_scan_of_another_task_is_refused_by_what_would_fit(spacing, block, line):
    with pytest.raises(BadInput, match=r"^a_t1\.nii\.gz: its voxels") as error:
        planned(spacing, block)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spacing", "block", "doubts"),
    [
        ((4, 4, 4), CUBE, []),
        ((1, 1, 4), SLAB, []),
        ((0.9, 0.9, 4.4), SLAB, []),
        ((1, 1, 5), SLAB, ["voxels of 1 x 1 x 5 mm come out as 1 x 1 x 1.25 mm; the weights saw 1 mm"]),
        ((0.5, 0.5, 4), SLAB, ["voxels of 0.5 x 0.5 x 4 mm come out as 0.5 x 0.5 x 1 mm; the weights saw 1 mm"]),
        ((1, 4, 1), SLAB, ["a_t1.nii.gz has coronal slices, refined back-front; the weights saw axial ones"]),
        ((1, 1, 5), NOTHING, ["voxels of 1 x 1 x 5 mm; the weights saw 1 mm"]),
    ],
)
def test_what_comes_out_is_said_where_the_weights_saw_something_else(spacing, block, doubts):
    assert planned(spacing, block).doubts == doubts


def test_weights_of_ones_own_may_be_for_voxels_of_any_size():
    assert planned((0.2, 0.2, 0.2), CUBE, trained_mm=0.0).doubts == []
    assert planned((0.4, 0.4, 0.4), CUBE, trained_mm=0.1).grid.spacing == pytest.approx([0.1] * 3)


def test_a_grid_that_no_machine_holds_is_refused_before_it_is_made():
    with pytest.raises(BadInput, match="its 200x40x40 voxels would become 800x160x160, but 640 a side are the most"):
        plan("x", [("a", grid(4, 4, 4, shape=(200, 40, 40)))], expect(CUBE))


def test_scans_in_three_planes_are_matched_with_their_blocks():
    scans = [("sag", grid(4, 1, 1, shape=(10, 40, 40))), ("ax", grid(1, 1, 4, shape=(40, 40, 10)))]
    with pytest.raises(BadInput, match="ax: its slices are axial, not sagittal; name the scans in the order sagittal, axial"):
        plan("x", scans[::-1], Expectation([[4, 1, 1], [1, 1, 4]]))
    with pytest.raises(BadInput, match=r"mm apart in space; scans of one measurement must cover the same field"):
        plan("x", scans, Expectation([[4, 1, 1], [1, 1, 4]], resample=True))  # voxel centres, not edges, coincide


@pytest.mark.parametrize("name", ["super_resolution", "super_resolution_thick_slice", "thick_planes", "translation", "both"])
def test_a_task_is_read_as_its_config_has_it(name):
    from scripts.running.workflow import config_files, load_config, task_config

    config = load_config(config_files("inference", [task_config(name)]))
    task = config.get_parsed_content("task")
    conditions, expected = asked_of([name])
    assert conditions == list(task.conditions)
    assert [tuple(block) for block in expected.blocks] == list(task.blocks)
    assert expected.trained_mm == config["trained_mm"]
    assert Path(expected.weights).name == f"{config['model_name']}.pt"
    assert expected.refusing == (config["degradation"] is None)


def test_words_that_name_no_task_are_conditions_and_a_file_is_a_task(tmp_path):
    assert asked_of(["t1"]) == (["t1"], Expectation())
    assert asked_of(["both", "t1"])[0] == ["both", "t1"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"conditions": ["pd"], "block": [2, 2, 2], "trained_mm": 0}))
    conditions, expected = asked_of([str(tmp_path / "mine.yaml")])
    assert (conditions, expected._replace(weights="")) == (["pd"], Expectation([[2, 2, 2]]))


SCANS = {"fine": (1, 1, 1), "cubes": (4, 4, 4), "axial": (1, 1, 4), "sagittal": (5, 1, 1), "two": (1, 4, 4)}


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("task", ["super_resolution", "super_resolution_thick_slice", "thick_planes"])
def test_the_doctor_and_the_loader_say_the_same(scan, task, tmp_path, rng, capsys):
    path = tmp_path / "a_t1.nii.gz"
    nib.save(nib.Nifti1Image(rng.random((20, 18, 24), dtype=np.float32), np.diag([*SCANS[scan], 1.0])), path)
    blocks = asked_of([task])[1].blocks
    degradation = BlockAverage(blocks[0]) if len(blocks) == 1 else ThickScans(blocks)
    code = main(["doctor", str(tmp_path), "--task", task])
    said = capsys.readouterr()
    try:
        data = LoadVolumesd(["image"], degradation, trained_mm=1.0)({"case": "a", "image": [str(path)]})
    except BadInput as error:
        assert code == 1 and "0 of 1 cases can be used" in said.out and str(error) in said.err
    else:
        assert code == 0 and "1 of 1 cases can be used" in said.out
        assert all(line in said.out for line in json.loads(data["image"].meta["doubts"]))


def test_the_doctor_asks_by_default_what_restore_asks_by_default(tmp_path, rng, capsys):
    nib.save(nib.Nifti1Image(rng.random((20, 18, 24), dtype=np.float32), np.eye(4)), tmp_path / "a_t1.nii.gz")
    assert main(["doctor", str(tmp_path)]) == 1
    line = "its voxels of 1 x 1 x 1 mm are fine already"
    assert line in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        main(["restore", str(tmp_path), "-o", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert line in said.out + said.err


def test_advice_is_given_without_torch():
    """The room itself is stood in for: what it imports is for others to say."""
    code = (
        "import sys, types; room = sys.modules['scripts.data'] = types.ModuleType('scripts.data'); "
        "room.__path__ = ['scripts/data']; import scripts.data.advice; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_frames_of_a_video_may_be_larger_than_planes_of_a_volume():
    """Two axes alone are refined; the third are few frames."""
    assert plan("x", [("a", grid(1, 1, 3, shape=(240, 320, 30)))], expect((4, 4, 1), trained_mm=0.0)).grid.shape == (
        960,
        1280,
        30,
    )
    with pytest.raises(BadInput, match="would become 1920x2560x30, but 1600 a side are the most"):
        plan("x", [("a", grid(1, 1, 3, shape=(480, 640, 30)))], expect((4, 4, 1), trained_mm=0.0))
