# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.__main__ import main
from scripts.data.cine import Cine, write_cine

pytestmark = pytest.mark.filterwarnings("ignore")
TASK = ["--task", "cine_super_resolution"]
ONCE = ["size=tiny", "precision=float32", "max_epochs=1", "steps_per_epoch=1", "batch_size=1", "val_cases=1", "turn=1.0"]


def settings(*more):
    return [*TASK, *(word for value in (*ONCE, *more) for word in ("--set", value))]


def test_loops_are_unfolded_trained_on_by_every_kind_of_member_fused_and_restored(tmp_path, rng):
    """The commands of docs/cine.md, with a step each."""
    voxels = rng.uniform(0, 5, (24, 24, 2, 18)).astype(np.float32)
    voxels[6:18, 6:18] += 100
    cine = Cine(voxels, np.eye(4), np.arange(18) * 0.03, True, Path("heart.nii.gz"))
    write_cine(cine, cine, tmp_path / "heart.nii.gz")
    loops, runs = tmp_path / "loops", tmp_path / "runs"
    assert main(["loops", str(tmp_path / "heart.nii.gz"), "-o", str(loops), "--train", "1", "--val", "2"]) == 0
    for plane, patch in {"x-t": "[16,16]", "space-time": "[16,16,18]"}.items():
        given = ["--plane", plane, *settings(f"patch={patch}")]
        assert main(["train", str(loops), "-o", str(runs / plane), *given]) == 0
    given = ["--planes", str(runs / "{plane}" / "latest.pt"), *settings("planes=[x-t,space-time]", "patch=[20,20,18]")]
    assert main(["train", str(loops), "-o", str(runs / "fusion"), *given]) == 0
    weights = str(runs / "fusion" / "latest.pt")
    given = ["--weights", weights, *TASK, "--set", "size=tiny", "--set", "planes=[x-t,space-time]"]
    assert main(["restore", str(tmp_path / "heart.nii.gz"), "-o", str(tmp_path / "out"), *given]) == 0
    assert nib.load(tmp_path / "out" / "heart_pred.nii.gz").shape == (96, 96, 2, 18)
