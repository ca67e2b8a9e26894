# SPDX-License-Identifier: Apache-2.0
"""Files of results, as evaluations leave them."""

import json

import pytest

SYSTEM = {
    "conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "planes": ["coronal", "sagittal"], "fusion": True,
    "consistency": True, "samples": 1, "size": "compact", "seed": 0, "nfe": 1,
}  # fmt: skip


@pytest.fixture
def write(tmp_path, rng):
    """A function that writes a results.json into a folder and gives the folder."""

    def write(folder, psnr=(30.0, 31.0, 33.0), *, more=None, metrics=None, **system):
        cases = {f"sub-{i}": {"psnr": value, "ssim": 0.9 + 0.001 * i, "seconds": 2.0} for i, value in enumerate(psnr)}
        for case, found in (metrics or {}).items():
            cases[case].update(found)
        (tmp_path / folder).mkdir(parents=True)
        content = {"system": {**SYSTEM, **system}, "n": len(cases), "cases": cases, "failures": {}, **(more or {})}
        (tmp_path / folder / "results.json").write_text(json.dumps(content))
        return str(tmp_path / folder)

    return write
