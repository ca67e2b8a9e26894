# SPDX-License-Identifier: Apache-2.0
"""What computes a network, and in which numbers: PyTorch, or on CPUs OpenVINO with convolutions in 8-bit integers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import BadInput, one_line
from ..networks.engine import compile_unets, has_openvino, named_unets, release_unets
from ..networks.quantization import known_ranges
from .precision import has_bfloat16, known_precision

logger = logging.getLogger(__name__)
BACKENDS = ("auto", "torch", "openvino")
# Relative root mean square. Shipped weights, measured: PyTorch's bfloat16 changes 0.003 to 0.012 of an answer, OpenVINO's 0.012
# to 0.05 and integers 0.03 to 0.10: of the volume that is 0.001 to 0.005 and 0.006 to 0.014, for most of it was measured.
TOLERANCE = 0.02
TITLES = {"int8": "8-bit integers"}
Ask = Callable[[bool], tuple[Tensor, Tensor]]


class Computation(NamedTuple):
    """How a network is computed: convolutions in `numbers`, the rest in bfloat16 if `half`; the U-Nets perhaps by OpenVINO."""

    numbers: str  # "int8", "bfloat16" or "float32"
    half: bool
    openvino: bool = False
    doubt: str = ""  # what differed from float32


class Backend:
    """Gives the U-Nets of a network their engines, or takes them away.

    name: "torch", "openvino", or "auto": OpenVINO where it is installed, on a CPU, for weights that came with ranges for
    integers (`quantization`), where the user wants no precision; but on one with bfloat16 only for several evaluations, since
    in a single one it gains no more than it takes to compile. precision: "float32", "bfloat16", or "auto": the latter where
    the device has it in hardware.
    What differs from PyTorch in float32 by more than `TOLERANCE` gives way to what comes next, in the end to float32; who asks
    for bfloat16 by name gets it all the same, and a doubt. What PyTorch computes is compared by the network's answer, what
    OpenVINO computes by the volume that the answer stands for.
    Raises BadInput for other names, and for "openvino" where it is not installed.
    """

    def __init__(self, name: str, precision: str) -> None:
        if name not in BACKENDS:
            raise BadInput(f"no backend '{name}'; choose one of {', '.join(BACKENDS)}")
        if name == "openvino" and not has_openvino():
            raise BadInput("backend openvino: the package is not there; pip install openvino, or choose torch")
        self.name, self.precision = name, known_precision(precision)
        self._prepared: WeakKeyDictionary[nn.Module, tuple[list[object], Computation]] = WeakKeyDictionary()

    def prepare(self, network: nn.Module, device: torch.device, ask: Ask, evaluations: int = 1) -> Computation:
        """Decide for a network and the device of its input; once for each state of the weights.

        ask: one evaluation of a small part of a volume, in bfloat16 or not: the network's answer, and the volume that it stands
        for, above background; evaluations: that the volume will take.
        """
        state = [device.type, evaluations > 1, *(parameter._version for parameter in network.parameters())]
        # An inferer of another backend may have been here since.
        if network not in self._prepared or self._prepared[network][0] != [*state, *_engines(network)]:
            computation = self._checked(network, self._ways(network, device, evaluations), ask)
            self._prepared[network] = [*state, *_engines(network)], computation
        return self._prepared[network][1]

    def _ways(self, network: nn.Module, device: torch.device, evaluations: int) -> list[Computation]:
        """What may compute the network, the best first, the surest last."""
        on_cpu, any_numbers, native = device.type == "cpu", self.precision == "auto", has_bfloat16(device)
        openvino = self.name == "openvino" and on_cpu
        pays = self.name == "auto" and on_cpu and has_openvino() and (evaluations > 1 or not native)
        integers = any_numbers and (openvino or pays) and known_ranges(network)
        ways = [Computation("int8", native, openvino=True)] if integers else []
        if self.precision == "bfloat16" or (any_numbers and native):
            ways.append(Computation("bfloat16", True, openvino))
        return ways if self.precision == "bfloat16" else [*ways, Computation("float32", False, openvino)]

    def _checked(self, network: nn.Module, ways: Sequence[Computation], ask: Ask) -> Computation:
        """The first that agrees with float32, else the last one, with what differed."""
        release_unets(network)
        wanted = None if ways[0].numbers == "float32" else ask(False)
        differences: dict[str, float] = {}
        for way in ways:
            try:
                self._engage(network, way)
                if wanted is None or way.numbers == "float32":
                    break
                compared = int(way.openvino)  # the answer, or the volume
                difference = relative_difference(ask(way.half)[compared], wanted[compared])
            except (BadInput, ImportError, OSError, RuntimeError) as error:
                if self.name == "openvino" or not way.openvino:
                    raise
                logger.warning(f"OpenVINO is not used: {one_line(error)}")
                continue
            if difference < TOLERANCE:
                break
            differences[way.numbers] = difference
        return way._replace(doubt=_doubt(differences, way))

    @staticmethod
    def _engage(network: nn.Module, way: Computation) -> None:
        if way.openvino:
            compile_unets(network, known_ranges(network) if way.numbers == "int8" else {}, half=way.half)
        else:
            release_unets(network)


def _doubt(differences: Mapping[str, float], way: Computation) -> str:
    """One line, warned of; nothing where nothing differed."""
    if not differences:
        return ""
    told = " and ".join(f"{difference:.1%} in {TITLES.get(numbers, numbers)}" for numbers, difference in differences.items())
    asked = ", as asked for" if way.numbers in differences else ""
    line = f"the first volume, in part, differs from float32 by {told}, more than {TOLERANCE:.0%}"
    logger.warning(line := f"{line}: computed in {way.numbers}{asked}")
    return line


def relative_difference(given: Tensor, wanted: Tensor) -> float:
    """Relative root mean square difference."""
    return float((given - wanted).norm() / wanted.norm().clamp(min=1e-12))


def _engines(network: nn.Module) -> list[object]:
    return [unet.engine for _, unet in named_unets(network)]
