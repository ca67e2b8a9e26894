# SPDX-License-Identifier: Apache-2.0
"""Who has arrays and no PyTorch can write DICOM."""

import subprocess
import sys

import dicom_series
import numpy as np
import pytest
from pydicom import dcmread

from scripts import bundle_root

OURS = """
import sys
from pathlib import Path

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "monai", "ignite"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refused())
import numpy as np
from scripts.data.dicom.write import write_parametric_map, write_series
from scripts.data.dicom.write_pixels import Placed
from scripts.data.provenance import Provenance
from scripts.measurement import Task

folder, *files = map(Path, sys.argv[1:])
content = np.load(folder / "placed.npz")
placed = Placed(content["voxels"], content["affine"], content["affine"])
made_by = Provenance("some", str(folder / "placed.npz"), 1, 1, 0, Task(["t1"], "flair", None))
write_series(placed, folder / "pred", [str(file) for file in files], made_by)
write_parametric_map(placed, folder / "uncertainty.dcm", [str(file) for file in files], made_by)
"""


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_arrays_become_a_series_and_a_map_where_there_is_no_torch(kind, tmp_path, rng):
    voxels, affine = dicom_series.random_voxels(rng, (5, 6, 4)), dicom_series.random_affine(rng)
    if kind == "classic":
        files = dicom_series.write_series(tmp_path / "source", voxels, affine)
    else:
        files = [dicom_series.write_enhanced(tmp_path / "source" / "1.dcm", voxels, affine)]
    result = rng.uniform(0, 900, voxels.shape).astype(np.float32)
    np.savez(tmp_path / "placed.npz", voxels=result, affine=affine)
    subprocess.run([sys.executable, "-c", OURS, tmp_path, *files], cwd=bundle_root(), check=True)
    slices = [dcmread(path) for path in sorted((tmp_path / "pred").iterdir())]
    assert len(slices) == (4 if kind == "classic" else 1)
    if kind == "classic":
        stack = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])
        places = np.stack([one.ImagePositionPatient for one in slices])
        assert np.allclose(np.ptp(places, axis=0), np.abs(affine[:3, 2]) * 3, atol=1e-3)
        assert np.isclose(stack.max(), result.max(), atol=0.02) and np.isclose(stack.mean(), result.mean(), atol=0.02)
    values = np.asarray(dcmread(tmp_path / "uncertainty.dcm").pixel_array)
    assert np.array_equal(np.sort(values, axis=None), np.sort(result, axis=None))
