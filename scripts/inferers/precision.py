# SPDX-License-Identifier: Apache-2.0
"""Half precision where the device computes it natively."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from ..errors import BadInput
from .memory import keep_freed_memory

logger = logging.getLogger(__name__)
PRECISIONS = ("auto", "float32", "bfloat16")
TOLERANCE = 0.05  # measured: trained weights 0.005; random ones of size tiny, compact and small 0.02 to 0.04
CROP = 32  # voxels a side of the volume that both are asked for


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, half: bool) -> AbstractContextManager[Any]:
    """A context in which networks run in bfloat16, if `half`."""
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


class Precision:
    """Decides whether networks run in bfloat16.

    name: "float32", "bfloat16", or "auto": where the device has it in hardware and a network, asked for the same crop in both,
    gives the same answer to `TOLERANCE`. Raises BadInput for other names.
    """

    def __init__(self, name: str = "auto") -> None:
        if name not in PRECISIONS:
            raise BadInput(f"no precision '{name}'; choose one of {', '.join(PRECISIONS)}")
        self.name = name
        self._agreed: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()

    def is_half(self, network: nn.Module, inputs: Tensor) -> bool:
        """The decision for a network and the device of its inputs (B, C, H, W, D); asked once for each."""
        if self.name != "auto" or not has_bfloat16(inputs.device):
            return self.name == "bfloat16"
        agreed = self._agreed.setdefault(network, {})
        if inputs.device.type not in agreed:
            difference = half_difference(network, inputs.device, inputs.shape[1])
            agreed[inputs.device.type] = difference < TOLERANCE
            if difference >= TOLERANCE:
                logger.warning(f"bfloat16 differs from float32 by {difference:.0%} on this {inputs.device.type}: using float32")
        return agreed[inputs.device.type]


@torch.no_grad()
def half_difference(network: nn.Module, device: torch.device, channels: int) -> float:
    """Relative root mean square difference of a network's answers in bfloat16 and float32 to one small random volume."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, CROP, CROP, CROP, generator=generator).to(device)
    answers = []
    for half in (False, True):
        with autocast(device, half):
            answers.append(network(x, x_t=x[:, :1], timesteps=torch.full((1,), 0.5, device=device)).float())
    return float((answers[1] - answers[0]).norm() / answers[0].norm().clamp(min=1e-12))


class MixedPrecisionInferer(SimpleInferer):
    """One call of the network in `precision`: what a trainer uses on every device (MONAI's `amp` is for CUDA only)."""

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        keep_freed_memory()
        self.precision = Precision(precision)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls `network(inputs, *args, **kwargs)`; the output is float32."""
        half = self.precision.name == "bfloat16" or (self.precision.name == "auto" and has_bfloat16(inputs.device))
        with autocast(inputs.device, half):
            return network(inputs, *args, **kwargs).float()
