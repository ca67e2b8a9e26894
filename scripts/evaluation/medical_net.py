# SPDX-License-Identifier: Apache-2.0
"""The features of the paper's FID: MedicalNet, the 3D ResNet-50 of Chen et al. 2019 (arXiv 1904.00625)."""

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadInput

Volume = npt.NDArray[np.floating]
Vector = npt.NDArray[np.float64]

SIDE = 256  # voxels, of the network's input
PREFIX = "module."
STAGES = ((64, 3, 1, 1), (128, 4, 2, 1), (256, 6, 1, 2), (512, 3, 1, 4))  # channels, blocks, stride, dilation
REMEDY = "give MedicalNet's resnet_50.pth (docs/evaluation.md#numbers)"


class Bottleneck(nn.Module):
    """Residual block (B, inputs, H, W, D) -> (B, 4 channels, H / stride, W / stride, D / stride), He et al. 2016."""

    def __init__(self, inputs: int, channels: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * channels
        self.conv1 = nn.Conv3d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = nn.Conv3d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:  # shortcut type B
            self.downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Residual branch plus shortcut."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return F.relu(self.bn3(self.conv3(h)) + self.downsample(x))


class MedicalNetBackbone(nn.Module):
    """ResNet-50 of 3D convolutions whose last two stages dilate instead of stride, under MedicalNet's parameter names.

    (B, 1, H, W, D) -> (B, 2048, H / 8, W / 8, D / 8). MONAI's `resnet50` takes the same weights but strides to 1 / 32,
    which gives other features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages()

    def forward(self, x: Tensor) -> Tensor:
        """Features before pooling."""
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _stages() -> list[nn.Sequential]:
    stages, inputs = [], 64
    for channels, count, stride, dilation in STAGES:
        first = Bottleneck(inputs, channels, stride=stride, dilation=dilation)
        inputs = 4 * channels
        others = [Bottleneck(inputs, channels, stride=1, dilation=dilation) for _ in range(count - 1)]
        stages.append(nn.Sequential(first, *others))
    return stages


class MedicalNet:
    """2048 features: the backbone's output on the volume resized to 256^3 in [-1, 1], averaged over space.

    weights: the user's copy of `resnet_50.pth` of MedicalNet (MIT licence); device: where to run, best a GPU.
    Raises BadInput when the file is missing or is not that network's.
    """

    name = "medicalnet_resnet50"

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        network = MedicalNetBackbone()
        _load(network, Path(weights).expanduser())
        self.network = network.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, volume: Volume) -> Vector:
        """(H, W, D) in [0, 1], of any size -> (2048,)."""
        x = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32)).to(self.device)
        x = F.interpolate(2 * x[None, None] - 1, size=(SIDE, SIDE, SIDE), mode="trilinear", align_corners=False)
        pooled: Vector = self.network(x).mean(dim=(0, 2, 3, 4)).double().cpu().numpy()
        return pooled


def _load(network: nn.Module, path: Path) -> None:
    """Strictly, but for the counters of the normalisation, which files of 2019 may lack and nothing reads."""
    if not path.is_file():
        raise BadInput(f"{path}: no such weights file; {REMEDY}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix(PREFIX): value for name, value in stored.items()}, strict=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{path}: does not hold the weights of MedicalNet's 3D ResNet-50; {REMEDY}") from error
