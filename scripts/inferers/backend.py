# SPDX-License-Identifier: Apache-2.0
"""What computes a network, and in which numbers: PyTorch, or on CPUs OpenVINO with convolutions in 8-bit integers."""

import logging
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import BadInput, one_line
from ..networks.engine import compile_unets, has_openvino, named_unets, release_unets
from ..networks.quantization import known_ranges
from .precision import Precision, autocast, has_bfloat16

logger = logging.getLogger(__name__)
BACKENDS = ("auto", "torch", "openvino")
TOLERANCE = 0.15


class Computation(NamedTuple):
    """How a network is computed: convolutions in `numbers`, the rest in bfloat16 if `half`."""

    numbers: str  # "int8", "bfloat16" or "float32"
    half: bool


class Backend:
    """Gives the U-Nets of a network their engines, or takes them away.

    name: "torch", "openvino", or "auto": OpenVINO where it is installed, on a CPU, for weights that came with ranges for
    integers (`quantization`); but on one with bfloat16 only for several evaluations, since in a single one it gains no more
    than it takes to compile. Integers are left out where they give another answer than float32, by more than `TOLERANCE`, and
    where the user wants a precision. Raises BadInput for other names, and for "openvino" where it is not installed.
    """

    def __init__(self, name: str, precision: Precision) -> None:
        if name not in BACKENDS:
            raise BadInput(f"no backend '{name}'; choose one of {', '.join(BACKENDS)}")
        if name == "openvino" and not has_openvino():
            raise BadInput("backend openvino: the package is not there; pip install openvino, or choose torch")
        self.name, self.precision = name, precision
        self._prepared: WeakKeyDictionary[nn.Module, tuple[list[object], Computation]] = WeakKeyDictionary()

    def prepare(self, network: nn.Module, x: Tensor, evaluations: int = 1) -> Computation:
        """Decide for a network and the device of its input; once for each state of the weights.

        x: a small part of a volume as the network sees it (B, C, H, W, D), on which the answers are compared; evaluations: that
        the volume will take.
        """
        state = [x.device.type, evaluations > 1, *(parameter._version for parameter in network.parameters())]
        # An inferer of another backend may have been here since.
        if network not in self._prepared or self._prepared[network][0] != [*state, *_engines(network)]:
            release_unets(network)
            computation = self._in_integers(network, x, evaluations) or self._in_floats(network, x)
            self._prepared[network] = [*state, *_engines(network)], computation
        return self._prepared[network][1]

    def _in_integers(self, network: nn.Module, x: Tensor, evaluations: int) -> Computation | None:
        half = has_bfloat16(x.device)
        pays = self.name == "auto" and has_openvino() and (evaluations > 1 or not half)
        wanted = (pays or self.name == "openvino") and self.precision.name == "auto" and x.device.type == "cpu"
        if not (wanted and known_ranges(network)):
            return None
        try:
            difference = integer_difference(network, x, half=half)
        except (BadInput, ImportError, OSError, RuntimeError) as error:
            if self.name == "openvino":
                raise
            logger.warning(f"OpenVINO is not used: {one_line(error)}")
            return None
        if difference < TOLERANCE:
            return Computation("int8", half)
        logger.warning(f"8-bit integers differ from float32 by {difference:.0%} on this volume: not used")
        return None

    def _in_floats(self, network: nn.Module, x: Tensor) -> Computation:
        release_unets(network)
        half = self.precision.is_half(network, x)
        if self.name == "openvino" and x.device.type == "cpu":
            compile_unets(network, {}, half=half)
        return Computation("bfloat16" if half else "float32", half)


def _engines(network: nn.Module) -> list[object]:
    return [unet.engine for _, unet in named_unets(network)]


@torch.no_grad()
def integer_difference(network: nn.Module, x: Tensor, *, half: bool) -> float:
    """Relative root mean square difference of a network's answers in integers and in float32; leaves it at integers."""
    wanted = network(x)
    compile_unets(network, known_ranges(network), half=half)
    with autocast(x.device, half):
        given = network(x).float()
    return float((given - wanted).norm() / wanted.norm().clamp(min=1e-12))
