# SPDX-License-Identifier: Apache-2.0
"""The inference of the bundle in steps, for callers that have loops of their own: an application, a notebook."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor

from ..data.advice import default_task
from ..data.cases import ERROR
from ..data.write import nifti_image
from ..errors import BadInput, root_cause
from ..files import temporary_folder
from .choosing_inferer import answering
from .parts import parts_of
from .progress import Progress
from .workflow import config_files, load_config, task_config

logger = logging.getLogger(__name__)
Image = str | Path | nib.spatialimages.SpatialImage | MetaTensor | npt.NDArray[Any]


class Steps:
    """What `inference.yaml`, loaded as `config`, does with one case: read it, translate it, write the result."""

    def __init__(self, config: ConfigParser) -> None:
        content = config.get_parsed_content
        if caveat := content("limits").caveat:
            logger.warning(caveat)
        self.device, self.inferer = content("device"), content("inferer")
        self.network = content("network").to(self.device)
        self.preprocessing, self.write = content("preprocessing"), content("postprocessing")

    def read(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Adds `image` to an entry of `find_cases`. Raises BadInput, also for one that was refused there."""
        if ERROR in data:
            raise BadInput(data[ERROR])
        return dict(self.preprocessing(data))

    def translate(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Adds `pred`, float32, to a case that was read. The log says every ten seconds how far it is."""
        image, case = data["image"][None].to(self.device), str(data["case"])
        network, _ = answering(self.inferer, image, self.network)
        with Progress(1) as progress, progress.case(case, image.shape, parts_of(network, self.inferer, image.shape)):
            pred = self.inferer(image, self.network, case=case)[0]
        return {**data, "pred": pred.cpu()}


def restore_image(
    image: Image | Sequence[Image], affine: npt.ArrayLike | None = None, *, task: str | None = None, **options: Any
) -> nib.Nifti1Image:
    """Restore one volume and return it; nothing is left on disk.

    image: a path, a nibabel image, a MetaTensor (1, H, W, D) or (H, W, D), or an array (H, W, D) with its affine (4, 4), voxels
    to mm in RAS; several for a task of several conditions, in their order. affine: of arrays alone. task: as
    configs/task_NAME.yaml, by default `default_task`; options: ids of the configs, such as steps=2.
    Raises BadInput for what cannot be used.
    """
    task = task or default_task(options.get("ckpt_path"))
    several: Sequence[Any] = list(image) if isinstance(image, list | tuple) else [image]
    with temporary_folder() as folder:
        config = load_config(config_files("inference", [task_config(task)]), {**options, "output_dir": folder})
        sources = [_on_disk(one, affine, Path(folder, f"image_{index}.nii.gz")) for index, one in enumerate(several)]
        if len(sources) != len(config["conditions"]):
            raise BadInput(f"task {task}: needs {' and '.join(config['conditions'])}, not {len(sources)} images")
        try:
            steps = Steps(config)
            return nifti_image(steps.write(steps.translate(steps.read({"case": "image", "image": sources})))["pred"])
        except RuntimeError as error:  # as MONAI's transforms wrap what happens in them
            raise root_cause(error) or error from error


def _on_disk(image: Image, affine: npt.ArrayLike | None, path: Path) -> str:
    """The path of an image, written to `path` unless it is a file."""
    knows = isinstance(image, str | Path | nib.spatialimages.SpatialImage | MetaTensor)
    if knows and affine is not None:
        raise BadInput("an affine was given beside an image that has its own; leave it out, or give the voxels as an array")
    if not knows and affine is None:
        raise BadInput("an array needs its affine, 4x4, voxels to mm; without it nobody knows the size of its voxels")
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, MetaTensor):
        affine, image = image.affine.numpy(), _without_channel(image)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        image = nib.Nifti1Image(np.asarray(image, dtype=np.float32), np.asarray(affine, dtype=np.float64))
    nib.save(image, path)
    return str(path)


def _without_channel(volume: MetaTensor) -> npt.NDArray[Any]:
    """Voxels (H, W, D) of a MetaTensor with or without a channel."""
    if volume.ndim == 3:
        return volume.numpy(force=True)
    if volume.ndim != 4 or len(volume) != 1:
        raise BadInput(f"a MetaTensor of {'x'.join(map(str, volume.shape))} is not one volume; give (1, H, W, D) or (H, W, D)")
    return volume[0].numpy(force=True)
