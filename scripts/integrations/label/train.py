# SPDX-License-Identifier: Apache-2.0
"""Training from MONAI Label: the bundle's train configs on the server's studies."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, name_to_device

from .task import ROOT, StudyTask, choice_of, device_of, numbers_of

FUSION = "fusion"
BUDGET = {"max_epochs": 40, "steps_per_epoch": 100, "batch_size": 1, "learning_rate": 1.0e-3}


class TranslationTraining(TrainTask):
    """Trains a part of a task, a plane or the fusion, anew for the requested number of epochs.

    Targets are the studies' own volumes, so no labels are needed. The fusion takes the planes that were trained here, or
    else those of the shipped weights; it becomes the model's "trained" weights.
    """

    def __init__(self, task: StudyTask) -> None:
        super().__init__(f"The planes {' and '.join(task.planes)}, or the fusion, of: {task.definition.title}")
        self.task = task

    def config(self) -> dict[str, Any]:
        """What a client may choose."""
        return {**BUDGET, "part": [FUSION, *self.task.planes], "device": device_list()}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, str]:
        """Run `monai.bundle` in a process of its own, which the client can stop; its lines are the status' details.

        Raises BadInput when an option cannot be used, RuntimeError when the training fails.
        """
        part = choice_of(request, "part", [FUSION, *self.task.planes])
        device, budget = device_of(name_to_device(request.get("device"))), numbers_of(request, BUDGET)
        folder = self.task.folder / f"{part}_training"
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted training, which may have had other settings
        command = [sys.executable, "-m", "monai.bundle", "run", *self._workflow(part), "--ckpt_dir", str(folder)]
        command += ["--dataset_dir", self.task.studies, "--cache_dir", str(self.task.folder / "cache")]
        command += ["--device", f"$torch.device('{device}')"]
        command += [word for key in BUDGET if key in request for word in (f"--{key}", str(budget[key]))]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise RuntimeError(f"the training of {self.task.name} failed; the lines above say why")
        weights = self.task.trained(part)
        (folder / "latest.pt").replace(weights)
        shutil.rmtree(folder)
        return {"weights": str(weights)}

    def _workflow(self, part: str) -> list[str]:
        if part in self.task.planes:
            return ["training", "--config_file", str(self.task.files("train_2d")), "--plane", part]
        planes = self.task.trained("{plane}")
        if not all(self.task.trained(plane).is_file() for plane in self.task.planes):
            planes = self.task.shipped
        return ["run", "--config_file", str(self.task.files("train")), "--plane_weights", str(planes)]
