# SPDX-License-Identifier: Apache-2.0
"""Half precision where the device computes it natively."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor

from ..errors import BadInput
from .memory import keep_freed_memory

PRECISIONS = ("auto", "float32", "bfloat16")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, half: bool) -> AbstractContextManager[Any]:
    """A context in which networks run in bfloat16, if `half`."""
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def known_precision(name: str) -> str:
    """The name of a precision. Raises BadInput for another one."""
    if name not in PRECISIONS:
        raise BadInput(f"no precision '{name}'; choose one of {', '.join(PRECISIONS)}")
    return name


class MixedPrecisionInferer(SimpleInferer):
    """One call of the network in `precision`: what a trainer uses on every device (MONAI's `amp` is for CUDA only)."""

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        keep_freed_memory()
        self.precision = known_precision(precision)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls `network(inputs, *args, **kwargs)`; the output is float32."""
        half = self.precision == "bfloat16" or (self.precision == "auto" and has_bfloat16(inputs.device))
        with autocast(inputs.device, half):
            return network(inputs, *args, **kwargs).float()
