# SPDX-License-Identifier: Apache-2.0
"""The features of the paper's FID: MedicalNet, the 3D ResNet-50 of Chen et al. 2019 (arXiv 1904.00625)."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import resnet50
from torch import nn

from ..errors import BadInput
from ..trust import check_weights
from .features import Vector, Volume

SIDE = 256  # voxels, of the network's input
REMEDY = "give MedicalNet's resnet_50.pth (docs/evaluation.md#numbers)"


def backbone() -> nn.Module:
    """MONAI's ResNet-50, (B, 1, H, W, D) -> (B, 2048), with MedicalNet's last two stages: they dilate instead of stride.

    Before it is averaged over space the result is 1 / 8 of the volume's sides. MONAI's own takes the same weights but strides
    to 1 / 32, which gives other features.
    """
    network: Any = resnet50(
        spatial_dims=3, n_input_channels=1, conv1_t_stride=2, feed_forward=False, shortcut_type="B", bias_downsample=False
    )
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        stage[0].conv2.stride = stage[0].downsample[0].stride = (1, 1, 1)
        for block in stage:
            block.conv2.dilation = block.conv2.padding = (dilation,) * 3
    return network


class MedicalNet:
    """2048 features: the backbone's output on the volume resized to 256^3 in [-1, 1], averaged over space.

    weights: the user's copy of `resnet_50.pth` of MedicalNet (MIT licence); device: where to run, best a GPU.
    Raises BadInput when the file is missing or is not that network's.
    """

    name = "medicalnet_resnet50"

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        network = backbone()
        _load(network, Path(weights).expanduser())
        self.network = network.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, volume: Volume) -> Vector:
        """(H, W, D) in [0, 1], of any size -> (2048,)."""
        x = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32)).to(self.device)
        x = F.interpolate(2 * x[None, None] - 1, size=(SIDE, SIDE, SIDE), mode="trilinear", align_corners=False)
        return self.network(x)[0].double().cpu().numpy()


def _load(network: nn.Module, path: Path) -> None:
    """Strictly, but for the counters of the normalisation, which files of 2019 may lack and nothing reads."""
    if not path.is_file():
        raise BadInput(f"{path}: no such weights file; {REMEDY}")
    check_weights(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix("module."): value for name, value in stored.items()}, strict=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{path}: does not hold the weights of MedicalNet's 3D ResNet-50; {REMEDY}") from error
