# SPDX-License-Identifier: Apache-2.0
"""U-Nets computed by OpenVINO: exported once, and kept on disk under all that they depend on."""

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files import whole
from .blocks import cropped
from .quantization import Ranges, quantized
from .unet import UNet

logger = logging.getLogger(__name__)
CODE = [Path(__file__).with_name(f"{name}.py") for name in ("blocks", "engine", "quantization", "unet")]
SLICES = 4  # computed at once
KEPT = 2  # sizes of input for which a network stays compiled
EXAMPLE = 32  # voxels a side of what a network is shown when it is exported; any size can be computed


def has_openvino() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("openvino") is not None


def cache_folder() -> Path:
    """Where exported networks are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "score_fusion")


def compile_unets(network: nn.Module, ranges: Ranges, *, half: bool) -> None:
    """Let OpenVINO compute the U-Nets of a network on the CPU, wherever no gradients are wanted and nothing runs in slabs.

    ranges: of the convolutions that are computed in 8-bit integers, by their names in the network; half: whether the rest is
    in bfloat16. Raises ImportError without OpenVINO.
    """
    for name, unet in named_unets(network):
        within = {key.removeprefix(f"{name}."): bound for key, bound in ranges.items() if key.startswith(f"{name}.")}
        unet.engine = Engine(unet, within, half=half)


def release_unets(network: nn.Module) -> None:
    """Back to PyTorch."""
    for _, unet in named_unets(network):
        unet.engine = None


def named_unets(network: nn.Module) -> list[tuple[str, UNet]]:
    """The U-Nets of a network by name."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, UNet)]


def in_integers(network: nn.Module) -> bool:
    """Whether convolutions of a network are computed in 8-bit integers."""
    return any(unet.engine is not None and unet.engine.ranges for _, unet in named_unets(network))


class Engine:
    """A U-Net exported at its first call, and compiled for this CPU, as many threads as PyTorch has, and every size of input.

    A size costs a third of a second; sizes left open would cost a quarter more time at every call, and twice the memory.
    """

    def __init__(self, unet: UNet, ranges: Ranges, *, half: bool) -> None:
        self.unet, self.ranges, self.half = unet, ranges, half
        self._path: Path | None = None
        self._requests: OrderedDict[tuple[torch.Size, ...], Any] = OrderedDict()  # by the sizes of the inputs

    def __deepcopy__(self, memo: Mapping[int, Any]) -> None:
        """A copy of a network may get other weights; it has no engine."""

    def __call__(self, x: Tensor, gamma: Tensor, injected: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As `UNet.forward`, in float32; of a network in 3D no maps."""
        inputs = [filled_up(x, self.unet.fold).float(), gamma.float(), *(level.float() for level in injected)]
        outputs = self._in_batches(inputs) if self.unet.dims == 2 else [output.clone() for output in self._infer(inputs)]
        return cropped(outputs[0], list(x.shape[2:])), outputs[1:]

    def _in_batches(self, inputs: list[Tensor]) -> list[Tensor]:
        """Slices a few at a time: as fast as many, with less memory, and of one size alone."""
        count = len(inputs[0])
        index = torch.arange(-(-count // SLICES) * SLICES).clamp(max=count - 1)
        parts = [[value[some] for value in inputs] for some in index.split(SLICES)]
        outputs = [[output.clone() for output in self._infer(part)] for part in parts]
        return [torch.cat(pieces)[:count] for pieces in zip(*outputs, strict=True)]

    def _infer(self, inputs: list[Tensor]) -> list[Tensor]:
        """Outputs in memory that the next call writes to."""
        sizes = tuple(value.shape for value in inputs)
        if sizes not in self._requests:
            self._requests[sizes] = self._compiled(inputs)
            if len(self._requests) > KEPT:
                self._requests.popitem(last=False)
        arrays = [value.contiguous().numpy() for value in inputs]
        results = self._requests[sizes].infer(arrays, share_inputs=True, share_outputs=True)
        return [torch.from_numpy(array) for array in results.to_tuple()]

    def _compiled(self, inputs: list[Tensor]) -> Any:
        model = _core().read_model(self._exported(inputs))
        model.reshape({place: list(value.shape) for place, value in enumerate(inputs)})
        precision = "bf16" if self.half else "f32"
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Its compiler of element-wise code crashes the process over GroupNorm in float32 (2025.4 to 2026.4), and saves an
            # eighth of the time in bfloat16.
            "SNIPPETS_MODE": "ENABLE" if self.half else "DISABLE",
        }
        return _core().compile_model(model, "CPU", options).create_infer_request()

    def _exported(self, inputs: list[Tensor]) -> Path:
        openvino = _openvino()
        if self._path is None:
            self._path = cache_folder() / self._key(len(inputs), openvino.__version__) / "network.xml"
        if not self._path.is_file():
            _export(openvino, with_steady_norms(quantized(self.unet, self.ranges)), self._example(inputs), self._path)
        return self._path

    def _key(self, inputs: int, version: str) -> str:
        """A name for all that an exported network depends on."""
        about = [self.unet.dims, self.unet.size, sorted(self.ranges.items()), inputs, version, torch.__version__]
        content = hashlib.sha256(repr(about).encode())
        for path in CODE:
            content.update(path.read_bytes())
        for name, value in sorted(self.unet.state_dict().items()):
            content.update(f"{name}{list(value.shape)}".encode() + value.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()[:32]

    def _example(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        """Small inputs of the same kinds."""
        x, _, *injected = inputs
        count, dims = min(len(x), 2), self.unet.dims
        sides = [EXAMPLE, *(EXAMPLE // self.unet.fold >> level for level in range(len(injected)))]
        x, *maps = (
            torch.randn(count, value.shape[1], *(dims * [side])) for value, side in zip([x, *injected], sides, strict=True)
        )
        return (x, torch.rand(count), *maps)


@cache
def _core() -> Any:
    """OpenVINO's, one for the process: with a second one, after the first is gone, it crashed."""
    return _openvino().Core()


def _openvino() -> Any:
    """The package without its telemetry.

    It would report every import and conversion to Google Analytics, and number this account in `~/intel`; each report forks
    the process, which takes long, and has ended in a deadlock.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # to import it fails: OpenVINO has a stub for that
    return importlib.import_module("openvino")


def filled_up(x: Tensor, fold: int) -> Tensor:
    """Spatial sides made multiples of `fold` by repeating their last voxels, as `folded` does."""
    missing = [-side % fold for side in x.shape[2:]]
    return F.pad(x, [amount for after in reversed(missing) for amount in (0, after)], mode="replicate") if any(missing) else x


class _Exported(nn.Module):
    """A U-Net whose maps are outputs like any other, or, in 3D, none."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, gamma: Tensor, *injected: Tensor) -> tuple[Tensor, ...]:
        raw, maps = self.unet(x, gamma, list(injected))
        return (raw, *maps) if self.unet.dims == 2 else (raw,)


class SteadyNorm(nn.Module):
    """A group norm that OpenVINO computes alike in any number of threads; its GroupNormalization is another in one than in two.

    The last digit is enough: a value between two 8-bit integers falls to the other one, and the next layers spread that.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...), as the norm does."""
        groups = x.flatten(1).unflatten(1, [self.norm.num_groups, -1])
        weight, bias = (values.view([1, -1, *[1] * (x.dim() - 2)]) for values in (self.norm.weight, self.norm.bias))
        return F.instance_norm(groups, eps=self.norm.eps).reshape(x.shape) * weight + bias


def with_steady_norms(network: nn.Module) -> nn.Module:
    """The same network, in which they take the place of its group norms."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.GroupNorm):
            network.set_submodule(name, SteadyNorm(module))
    return network


def _export(openvino: Any, unet: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")  # of branches on sizes, all alike for multiples of the fold
        traced = torch.jit.trace(_Exported(unet.eval()), example, check_trace=False)  # the answers are compared later
        model = openvino.convert_model(traced, example_input=example)
    with whole(path.parent, "set XDG_CACHE_HOME to a folder that can be written") as folder:
        folder.mkdir()
        openvino.save_model(model, folder / path.name, compress_to_fp16=False)
    logger.info(f"a network was exported for OpenVINO: {path.parent}")
