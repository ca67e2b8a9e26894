# SPDX-License-Identifier: Apache-2.0
"""What the tests of this room start from."""

import json

import pytest
from heads import METRICS, draw_head, save


@pytest.fixture
def head(rng):
    return draw_head(rng)


@pytest.fixture
def run(tmp_path, head):
    """What evaluate.yaml leaves of the cases a (worse) and b, and the dataset."""
    cases = {"a": {**METRICS, "psnr": 21.25}, "b": METRICS}
    for case in cases:
        save(head, tmp_path / "data" / f"{case}_t1.nii.gz")
        save(0.95 * head, tmp_path / "out" / case / f"{case}_pred.nii.gz")
    system = {"conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "seed": 3}
    content = {"system": system, "n": 2, "mean": METRICS, "cases": cases, "failures": {"c": "t1 has 3 <voxels>"}}
    content |= {"versions": {"torch": "2.x"}, "warnings": ["a warning"], "calibration": None}
    (tmp_path / "out" / "results.json").write_text(json.dumps(content))
    return tmp_path
