# SPDX-License-Identifier: Apache-2.0
"""`score-fusion interval` as a whole: from folders of volumes to a head beside weights, of which inference makes use."""

import re

import nibabel as nib
import numpy as np
import pytest

from scripts.errors import BadInput
from scripts.experiments import intervals as module
from scripts.files import read_json
from scripts.inferers.intervals import LEVEL, read_head
from scripts.networks import ScoreFusion
from scripts.networks.weights import write

pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = ["size=tiny", "planes=['coronal']", "precision=float32"]


@pytest.fixture
def weights(awaken, tmp_path):
    write(awaken(ScoreFusion(["coronal"], size="tiny")).state_dict(), tmp_path / "tiny.pt")
    return str(tmp_path / "tiny.pt")


@pytest.fixture
def data(rng, tmp_path, monkeypatch):
    """Two cases to learn from and two to scale with, the brightest voxel of each another."""
    monkeypatch.setattr(module, "STEPS", 100)
    monkeypatch.setattr(module, "SIDE", 16)
    for case, gain in zip("abcd", (1, 3, 10, 30), strict=True):
        voxels = gain * np.pad(rng.uniform(300, 900, (20, 24, 20)), 4).astype(np.float32)
        (tmp_path / "data").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "data" / f"{case}_t1.nii.gz")
    (tmp_path / "data" / "splits.csv").write_text("case,split\na,train\nb,train\nc,val\nd,val\n")
    return tmp_path / "data"


def test_a_head_is_written_that_covers_each_case_as_it_was_scaled_on_the_other(data, weights, capsys):
    """Errors of the two are alike, for the same network answers the same noise: their coverage is what is meant."""
    note = read_json(module.intervals(weights, [[str(data), "t1"]], settings=SETTINGS), "")
    printed = re.findall(r"^t1: ([\d.]+)% covered, ([\d.]+)% to ([\d.]+)%, n = 2$", capsys.readouterr().out, re.MULTILINE)
    shares = note["covered"]["t1"]
    assert [float(value) for value in printed[0]] == pytest.approx(
        [100 * np.mean(shares), 100 * min(shares), 100 * max(shares)], abs=0.06
    )
    assert shares == pytest.approx([LEVEL, LEVEL], abs=0.1)
    head = read_head(weights)
    assert head is not None and head.factors == note["factors"] and note["task"] == "super_resolution"


def test_a_case_that_cannot_be_read_is_named(data, weights):
    (data / "b_t1.nii.gz").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"case b: .*holds 7 bytes"):
        module.intervals(weights, [[str(data), "t1"]], settings=SETTINGS)


def test_no_cases_are_refused(data, weights):
    with pytest.raises(BadInput, match="--cases 0: give 1 and more"):
        module.intervals(weights, [[str(data), "t1"]], cases=0, settings=SETTINGS)
