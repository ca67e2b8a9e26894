# SPDX-License-Identifier: Apache-2.0
"""How wrong a result of one evaluation may be: a voxel-wise interval, scaled until it covers what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.transforms import MapTransform
from torch import Tensor

from ..data.specialists import SPECIALIST, Specialist
from ..errors import BadInput
from ..files import read_json, sha256, write_json
from ..measurement import AsScanned, BlockAverage, Degradation
from ..measurement.channels import normalized_input
from ..networks.error_net import FOLD, ErrorNet
from ..networks.weights import read, write

LEVEL = 0.8  # share of voxels whose error is to lie within the interval
REMEDY = "make it anew (score-fusion interval) or delete it"


class Head(NamedTuple):
    """What predicts the interval of results by one file of weights: a network, and by contrast what it is multiplied by."""

    network: ErrorNet
    factors: Mapping[str, float]

    def __call__(self, image: Tensor, pred: Tensor, operator: Degradation | None, contrast: str) -> Tensor:
        """Half the width in the units of the result, 0 in the background; a contrast that nobody scaled has the widest.

        image: raw conditions (B, C, H, W, D); pred: the result (B, 1, H, W, D); returns its shape.
        """
        x, mask, scale = normalized_input(image, operator)
        first = scale.of_channel(0)
        relative = self.network.whole(torch.cat([first.normalize(pred), x], dim=1)) * self.factor(contrast)
        return torch.where(mask > 0, relative * (first.restore(torch.ones(())) - first.restore(torch.zeros(()))), 0.0)

    def factor(self, contrast: str) -> float:
        """Of a contrast, or the largest."""
        return self.factors.get(contrast, max(self.factors.values()))


def files(weights: str | Path) -> tuple[Path, Path]:
    """Beside weights: the tensors of their head, and what is to know of it."""
    path = Path(weights).expanduser()
    return path.with_suffix(".interval.pt"), path.with_suffix(".interval.json")


def write_head(weights: str | Path, head: Head, facts: Mapping[str, Any]) -> Path:
    """Beside weights; facts: how it was made and what it covered. Returns the path of the JSON file."""
    tensors, note = files(weights)
    write({key: value.half() for key, value in head.network.state_dict().items()}, tensors)
    sums = {"weights": sha256(Path(weights).expanduser()), "head": sha256(tensors)}
    write_json(note, {**sums, "level": LEVEL, "factors": dict(head.factors), **facts})
    return note


def read_head(weights: str | Path) -> Head | None:
    """The head of weights, None where there is none. Raises BadInput when it is damaged or of other weights."""
    tensors, note = files(weights)
    if not (note.is_file() and Path(weights).expanduser().is_file()):
        return None
    content = read_json(note, REMEDY)
    if content.get("weights") != sha256(Path(weights).expanduser()):
        raise BadInput(f"{note}: of other weights than {Path(weights).name}; {REMEDY}")
    if not tensors.is_file() or content.get("head") != sha256(tensors):
        raise BadInput(f"{tensors}: is not what {note.name} says; {REMEDY}")
    try:  # whose weights are trusted may say how wrong they are; it is tensors alone
        state = {key: value.float() for key, value in read(tensors).items()}
        network = ErrorNet(state["layers.0.weight"].shape[1] // FOLD**3)
        network.load_state_dict(state)
        factors = {str(contrast): float(factor) for contrast, factor in content["factors"].items()}
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(f"{note}: is no head of weights; {REMEDY}") from error
    return Head(network.eval(), factors)


class PredictIntervald(MapTransform):
    """Adds `interval` (1, H, W, D), half the width of the 80 % interval around `pred`, where its weights have a head.

    weights: those of the run, None for none; those of a specialist speak for its cases (meta `specialist`). degradation,
    target: of the task. steps: of the sampler; switches: of the method; adapt: minutes. Coverage was measured with one step,
    all switches on and weights as they are, so nothing is added otherwise.
    """

    def __init__(
        self, weights: str | Path | None, degradation: Degradation | AsScanned | None, target: str, *, steps: int = 1,
        switches: Sequence[bool] = (), adapt: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(("pred",))
        self.weights, self.degradation, self.target = weights, degradation, target
        self.measured = weights is not None and steps == 1 and all(switches) and not adapt
        self._heads: dict[str, Head | None] = {}

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """`image` and `pred` are of the crop that was computed."""
        if not self.measured:
            return dict(data)
        image, pred = data["image"], data["pred"]
        weights, operator = self._asked(image)
        if weights not in self._heads:
            self._heads[weights] = read_head(weights)
        if (head := self._heads[weights]) is None:
            return dict(data)
        given, result = (torch.as_tensor(volume).cpu().as_subclass(Tensor)[None] for volume in (image, pred))
        return {**data, "interval": head(given, result, operator, self.target)[0]}

    def identity(self) -> str:
        """Checksum of what is known of the head of the run's weights, "" without one."""
        note = files(self.weights)[1] if self.weights is not None and self.measured else None
        return sha256(note) if note is not None and note.is_file() else ""

    def _asked(self, image: Any) -> tuple[str, Degradation | None]:
        """Whose weights answered, and the operator as these networks see it."""
        if task := image.meta.get(SPECIALIST, ""):
            specialist = Specialist.of(task)
            return specialist.weights, BlockAverage(specialist.blocks)
        return str(self.weights), None if self.degradation is None else self.degradation.of(image)
