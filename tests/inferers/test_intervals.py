# SPDX-License-Identifier: Apache-2.0
"""Intervals: they cover what they say on errors drawn anew, follow the units of a scan, and belong to one file of weights."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts import bundle_root
from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.experiments import intervals as module
from scripts.experiments.intervals import Answer, coverage, fitted, ratios
from scripts.files import sha256
from scripts.inferers import PredictIntervald
from scripts.inferers.intervals import LEVEL, Head, files, read_head, write_head
from scripts.measurement import BlockAverage
from scripts.networks.error_net import CALM, ErrorNet
from scripts.trust import asked_for

pytestmark = pytest.mark.filterwarnings("ignore")
BLOCKS = BlockAverage((4, 4, 4))


def drawn(rng, side=20):
    """Errors of a normal distribution whose width the first channel tells: 0.01 to 0.1."""
    width = torch.from_numpy(rng.uniform(-1, 1, (1, 1, side // 4, side // 4, side // 4))).float()
    width = torch.nn.functional.interpolate(width, scale_factor=4)
    error = torch.from_numpy(rng.normal(size=width.shape)).float().abs() * 10 ** (width / 2 - 1.5)
    return Answer(width.expand(-1, 6, -1, -1, -1), error, torch.ones_like(width, dtype=torch.bool))


def test_what_it_says_of_errors_holds_where_they_are_large_and_where_they_are_small(rng, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 250)
    network = fitted([drawn(rng) for _ in range(12)])
    tests = [drawn(rng) for _ in range(4)]
    within = [[], []]
    for answer in tests:
        inside = answer.error <= network.whole(answer.x)
        for group, chosen in enumerate((answer.x[:, :1] < 0, answer.x[:, :1] >= 0)):
            within[group].append(float(inside[chosen].float().mean()))
    for group in within:
        assert abs(np.mean(group) - LEVEL) < 0.06
    assert np.mean(coverage([ratios(network, answer) for answer in tests])) == pytest.approx(LEVEL, abs=0.05)


def test_coverage_of_a_case_is_scaled_on_the_others_alone(rng):
    one, other = rng.uniform(0, 1, 5000).astype(np.float32), rng.uniform(0, 2, 5000).astype(np.float32)
    assert coverage([one, other]) == pytest.approx([1.0, LEVEL / 2], abs=0.03)
    with pytest.raises(BadInput, match="give two and more"):
        coverage([one])


def test_slabs_say_what_the_whole_says(rng):
    network = ErrorNet(6)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.from_numpy(rng.normal(size=(1, 6, 150, 9, 10))).float()
    with torch.no_grad():
        torch.testing.assert_close(network.whole(x), network(x))


@pytest.fixture
def weights(tmp_path):
    """A file of weights with an untrained head, which says the same everywhere."""
    torch.save({}, path := tmp_path / "own.pt")
    write_head(path, Head(ErrorNet(6).eval(), {"t1": 0.5, "flair": 2.0}), {"task": "super_resolution"})
    return path


def case(rng, gain=1.0):
    voxels = torch.zeros(1, 20, 20, 20)
    voxels[:, 4:-4, 4:-4, 4:-4] = torch.from_numpy(rng.uniform(100, 900, (12, 12, 12))).float()
    blocks = BLOCKS(voxels[None])[0] * gain
    return {"image": MetaTensor(blocks), "pred": voxels * gain, "case": "a"}


def test_an_interval_has_the_units_of_the_scan_and_none_in_the_background(weights, rng):
    state = rng.bit_generator.state
    first = PredictIntervald(weights, BLOCKS, "t1")(case(rng))["interval"]
    rng.bit_generator.state = state
    brighter = PredictIntervald(weights, BLOCKS, "t1")(case(rng, gain=7.0))["interval"]
    torch.testing.assert_close(brighter, 7 * first)
    assert (first[:, :4] == 0).all() and (first[:, 4:-4, 4:-4, 4:-4] > 0).all()
    image = case(rng)["image"]
    span = float(image.max()) / 1.5  # normalised intensities span 1.5 from background to bright end
    assert float(first.max()) == pytest.approx(0.5 * np.exp(CALM) * span, rel=0.2)


def test_a_contrast_that_nobody_scaled_has_the_widest(weights, rng):
    state, found = rng.bit_generator.state, {}
    for target in ("t1", "flair", "t2"):
        rng.bit_generator.state = state
        found[target] = PredictIntervald(weights, BLOCKS, target)(case(rng))["interval"]
    torch.testing.assert_close(found["flair"], 4 * found["t1"])
    torch.testing.assert_close(found["t2"], found["flair"])


@pytest.mark.parametrize("options", [{"steps": 2}, {"switches": [True, False]}])
def test_of_other_ways_to_a_result_nothing_is_said(weights, rng, options):
    assert "interval" not in PredictIntervald(weights, BLOCKS, "t1", **options)(case(rng))


def test_a_head_that_came_later_makes_another_result(weights):
    def identity(**options):
        return PredictIntervald(weights, BLOCKS, "t1", **options).identity()

    before = identity()
    assert len(before) == 64 and identity(steps=2) == ""
    write_head(weights, Head(ErrorNet(6).eval(), {"t1": 0.6}), {"task": "super_resolution"})
    assert identity() not in (before, "")
    for file in files(weights):
        file.unlink()
    assert identity() == ""


def test_a_head_belongs_to_its_weights(weights, tmp_path):
    other = tmp_path / "other.pt"
    torch.save({"of": torch.ones(1)}, other)
    assert read_head(other) is None and read_head(tmp_path / "missing.pt") is None
    for mine, theirs in zip(files(weights), files(other), strict=True):
        theirs.write_bytes(mine.read_bytes())
    with pytest.raises(BadInput, match=r"of other weights than other\.pt"):
        read_head(other)
    files(weights)[0].write_bytes(b"damaged")
    with pytest.raises(BadInput, match=r"is not what own\.interval\.json says"):
        read_head(weights)


def test_what_is_no_head_is_refused_in_a_line(weights):
    tensors, note = files(weights)
    content = json.loads(note.read_text())
    torch.save({"layers.0.weight": torch.ones(2)}, tensors)
    note.write_text(json.dumps({**content, "head": sha256(tensors)}))
    with pytest.raises(BadInput, match="is no head of weights"):
        read_head(weights)


def test_heads_that_ship_serve_an_account_that_made_nothing(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with asked_for():
        for name in ("any", "both", "model", "thick_slice"):
            assert read_head(Path(bundle_root(), "models", f"{name}.pt")) is not None


def test_a_run_writes_it_and_an_evaluation_measures_what_it_covers(rng, tmp_path):
    """Heads of the weights that ship; that of these random voxels covers as much as it happens to."""
    voxels = rng.uniform(100, 900, (10, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), tmp_path / "a_t1.nii.gz")
    options = ["--task", "super_resolution", "--set", "precision=float32"]
    assert main(["restore", str(tmp_path / "a_t1.nii.gz"), "-o", str(tmp_path / "out"), *options]) == 0
    written = nib.load(tmp_path / "out" / "a" / "a_interval.nii.gz").get_fdata()
    assert written.shape == (40, 36, 40) and written.max() > 0
    (tmp_path / "data").mkdir()
    nib.save(nib.Nifti1Image(rng.uniform(100, 900, (24, 20, 24)), np.eye(4)), tmp_path / "data" / "b_t1.nii.gz")
    assert main(["evaluate", str(tmp_path / "data"), "-o", str(tmp_path / "eval"), "--split", "all", *options]) == 0
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert 0 <= results["mean"]["coverage"] <= 1
    retained = results["risk_coverage"]
    assert len(retained["error"]) == len(retained["kept"]) and retained["kept"][-1] == 1
