# SPDX-License-Identifier: Apache-2.0
"""Inference for MONAI Label: the bundle's own preprocessing, inferer and postprocessing around the server's request."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from torch import nn

from scripts.errors import BadInput
from scripts.networks.weights import load_weights

from .task import StudyTask, choice_of, device_of, doubts_of, numbers_of

WEIGHTS = ("shipped", "trained")


class TranslationTask(BasicInferTask):
    """A task of the bundle as a model of the server.

    Its type is "others", so no client takes the result for a segmentation, and nothing resamples it. The result is
    what the bundle writes: float32 NIfTI on the input's grid, or on the finer one.
    """

    def __init__(self, task: StudyTask) -> None:
        options = {**task.defaults, "weights": list(WEIGHTS if task.shipped.is_file() else WEIGHTS[::-1])}
        files = [str(task.shipped), str(task.trained("fusion"))]
        about = f"{task.definition.title}. Not for diagnosis. {task.limits.caveat}".strip()
        super().__init__(files, None, InferType.OTHERS, None, 3, about, config=options)
        self.task = task

    def pre_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        """The study's other files, then the bundle's preprocessing. The parser is made anew: the request has options."""
        data["result_dir"] = tempfile.TemporaryDirectory()  # gone with the request, however that ends
        device_of(data["device"])
        changes: dict[str, Any] = {**numbers_of(data, self.task.defaults)}
        weights = self._file(data)
        own = {} if weights == self.task.bundled else {"specialists": None}  # these answer for the weights that ship alone
        changes |= {**own, "ckpt_path": str(weights), "output_dir": data["result_dir"].name}
        data["parser"] = self.task.parser("inference", changes)
        if self._weights(data) == WEIGHTS[0]:
            data["parser"].get_parsed_content("limits")  # refuses more steps than shipped weights bear
        steps = data["parser"].get_parsed_content("preprocessing").transforms
        return [lambda data: {**data, **self.task.case_of(data["image"])}, *steps]

    def inferer(self, data: Any = None) -> Any:
        """The bundle's, told the case: another case draws other noise."""
        return partial(data["parser"].get_parsed_content("inferer"), case=data["case"])

    def post_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        """The bundle's, which end with writing."""
        return data["parser"].get_parsed_content("postprocessing").transforms

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[str, dict[str, Any]]:
        """What was written, under names that the server may delete, and what is doubted of it; a client's wish for integers is
        not granted.
        """
        files = {key: _moved(data[f"{key}_path"]) for key in ("pred", "uncertainty") if f"{key}_path" in data}
        return files.pop("pred"), {**files, "doubts": doubts_of(data)}

    def _weights(self, data: Mapping[str, Any]) -> str:
        return choice_of(data, "weights", self._config["weights"])

    def _file(self, data: Mapping[str, Any]) -> Path:
        return self.task.trained("fusion") if self._weights(data) == "trained" else self.task.shipped

    def _get_network(self, device: str, data: Any) -> nn.Module:
        wanted, path = self._weights(data), self._file(data)
        if not path.is_file():
            raise BadInput(f"{self.task.name}: there are no {wanted} weights ({path}); train it, or choose the other ones")
        stamp = (path, path.stat().st_mtime)
        if self._networks.get(device, (None, None))[1] != stamp:
            network = load_weights(data["parser"].get_parsed_content("network_def"), path)
            self._networks[device] = (network.to(device).eval(), stamp)
        return self._networks[device][0]


def _moved(path: str) -> str:
    handle, free = tempfile.mkstemp(suffix="".join(Path(path).suffixes[-2:]))
    os.close(handle)
    shutil.move(path, free)
    return free
