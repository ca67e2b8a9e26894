# SPDX-License-Identifier: Apache-2.0
import math
import re

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scripts.errors import BadInput
from scripts.experiments import calibration
from scripts.files import sha256
from scripts.inferers import backend
from scripts.networks import ScoreFusion
from scripts.networks.engine import has_openvino
from scripts.networks.quantization import read_ranges
from scripts.running.workflow import config_files, task_config

pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = ["size=tiny", "planes=['coronal']"]
KEPT = 1  # convolution that is calibrated here, of many: each is exported alone where all together lose too much


@pytest.fixture
def data(rng, tmp_path, monkeypatch):
    """Two cases, one to take ranges of and one to measure on."""
    if not has_openvino():
        pytest.skip("OpenVINO is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for case in "ab":
        voxels = np.pad(rng.uniform(300, 900, (12, 14, 16)), ((20, 4), (4, 4), (4, 4))).astype(np.float32)
        (tmp_path / "data").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "data" / f"{case}_t1.nii.gz")
    (tmp_path / "data" / "splits.csv").write_text("case,split\na,train\nb,val\n")
    observed = calibration._observed
    monkeypatch.setattr(calibration, "_observed", lambda *given: dict(list(observed(*given).items())[:KEPT]))
    return tmp_path / "data"


@pytest.fixture
def weights(awaken, tmp_path):
    torch.save(awaken(ScoreFusion(["coronal"], size="tiny")).state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_ranges_of_weights_are_written_beside_them_where_little_is_lost(data, weights, capsys, monkeypatch):
    monkeypatch.setattr(backend, "TOLERANCE", math.inf)  # random weights are no trained ones
    ranges = calibration.calibrate(str(data), str(weights), tolerance=30.0, settings=SETTINGS)
    assert len(ranges) == KEPT and all(bound > 0 for bound in ranges.values())
    assert read_ranges(weights) == pytest.approx(ranges, rel=1e-3)  # four digits
    assert sha256(weights) in weights.with_suffix(".int8.json").read_text()
    said = capsys.readouterr().out
    assert re.search(rf"{KEPT} convolutions in integers: [+-][\d.]+ dB below [\d.]+ dB in float32, n = 1", said)


def test_answers_are_compared_with_the_part_of_the_truth_that_they_are_of(data):
    """Super-resolution: the means over 4x4x4 voxels of the truth are what goes in."""
    files = config_files("evaluate", [task_config("super_resolution")])
    ((image, truth),) = calibration._volumes(files, {"dataset_dir": str(data), "split": "val"}, None)
    assert len(truth) < 36  # something was cut off
    assert image[0, 0, ::4, ::4, ::4].numpy() == pytest.approx(F.avg_pool3d(truth[None], 4)[0].numpy(), rel=1e-5)


def test_convolutions_go_back_to_floats_where_inference_would_take_floats_instead(data, weights, capsys, monkeypatch):
    monkeypatch.setattr(backend, "TOLERANCE", 0.0)
    weights.with_suffix(".int8.json").write_text('{"weights": "of others", "ranges": {}}')
    assert calibration.calibrate(str(data), str(weights), tolerance=30.0, settings=SETTINGS) == {}
    counts = re.findall(r"(\d+) convolutions in integers", capsys.readouterr().out)
    assert counts == ["1", "0"]
    assert read_ranges(weights) == {}


def test_ranges_of_weights_that_others_answered_for_are_no_ranges(data, weights, monkeypatch):
    """A run of task any asks the weights that saw such scans, and integers would seem to cost nothing."""
    asked = []
    load = calibration.load_config
    monkeypatch.setattr(calibration, "load_config", lambda files, options: asked.append(options) or load(files, options))
    monkeypatch.setattr(calibration, "_observed", lambda *given: {})
    with pytest.raises(BadInput, match=r"tiny.pt: no convolution of it was asked"):
        calibration.calibrate(str(data), str(weights), settings=SETTINGS)
    assert asked and all(options["specialists"] is None for options in asked)


def test_without_openvino_it_says_so(monkeypatch):
    monkeypatch.setattr(calibration, "has_openvino", lambda: False)
    with pytest.raises(BadInput, match="pip install openvino"):
        calibration.calibrate("data", "weights.pt")
