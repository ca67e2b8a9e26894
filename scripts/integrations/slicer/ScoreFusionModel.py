# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, N803, N999 (the extension gives the names)
"""The bundle as a model of the Slicer extension SlicerModalityConverter; `install.py` copies this file into it.

Slicer's Python has none of the bundle's packages, so the bundle runs in its own environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import slicer
from ModalityConverterLib.ModelBase import BaseModel, register_model


class ScoreFusionModel(BaseModel):
    """A task of the bundle. Its "model file" says where the bundle, its Python and the task's configs are."""

    def _loadModelFromPath(self, modelPath: str) -> Any:
        return json.loads(Path(modelPath).read_text(encoding="utf-8"))

    def runInference(self, inputVolume: Any, outputVolume: Any, inputMask: Any = None, showAllFiles: bool = True) -> Any:
        """Translate one volume; the output gets its own grid, and Slicer shows what is doubted of it.

        Raises RuntimeError with one line.
        """
        if not hasattr(inputVolume, "GetIJKToRASMatrix"):  # every task goes by the size of voxels
            fact = "this version of SlicerModalityConverter hands over voxels without their size"
            raise RuntimeError(f"{fact}; run the bundle on the file and load the result (docs/slicer.md)")
        with tempfile.TemporaryDirectory() as folder:
            voxels = slicer.util.arrayFromVolume(inputVolume).astype(np.float32)
            result, doubts = self._translated(nib.Nifti1Image(voxels.transpose(), ijk_to_ras(inputVolume)), Path(folder))
            array = np.ascontiguousarray(result.get_fdata(dtype=np.float32).transpose())
        slicer.util.updateVolumeFromArray(outputVolume, array)
        outputVolume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(result.affine))
        slicer.util.setSliceViewerLayers(background=outputVolume, fit=True)
        if doubts:
            slicer.util.warningDisplay("\n".join(doubts))
        return array

    def _translated(self, image: Any, folder: Path) -> tuple[Any, list[str]]:
        """The result, and what the run doubts of it."""
        (folder / "in").mkdir()
        nib.save(image, folder / "in" / "volume.nii.gz")
        command = [self.model["python"], "-m", "monai.bundle", "run", "inference", "--config_file", str(self.model["configs"])]
        command += ["--dataset_dir", str(folder / "in"), "--output_dir", str(folder / "out")]
        # Slicer's own Python must not leak into the bundle's.
        own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key != "LD_LIBRARY_PATH"}
        done = subprocess.run(command, cwd=self.model["bundle"], env=own, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise RuntimeError(next((line for line in reversed(said) if "volume:" in line or "error:" in line), said[-1]))
        record = json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))
        return nib.load(folder / "out" / "volume" / "volume_pred.nii.gz"), record["cases"]["volume"].get("doubts", [])


def ijk_to_ras(volume: Any) -> Any:
    """The affine (4, 4) of a volume node, in mm."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


LISTED = Path(__file__).resolve().parents[2] / "Resources" / "Models" / "metadata.json"
for key, entry in json.loads(LISTED.read_text(encoding="utf-8")).items():
    if entry.get("module_name") == ScoreFusionModel.__name__:
        register_model(key)(ScoreFusionModel)
