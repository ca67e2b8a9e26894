# SPDX-License-Identifier: Apache-2.0
"""Training a segmentation: regions of a label map, random patches, and weights made here or elsewhere."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform
from torch import Tensor, nn

from ..errors import BadInput, listed
from ..networks.weights import averaged_of, checked, named_tensors

logger = logging.getLogger(__name__)
_scalar: Any = np.float64(0).__reduce__()[0]
# Public checkpoints hold their best score as a NumPy scalar, saved by NumPy 1 or 2.
SCORES: list[Any] = [_scalar, (_scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("f8")), type(np.dtype("f4"))]


class LabelRegionsd(MapTransform):
    """Turns a label map (1, H, W, D) into one binary channel a region (R, H, W, D).

    regions: name -> the labels it unites, e.g. `{"TC": [1, 3, 4], "WT": [1, 2, 3, 4]}`; regions may overlap, and labels of
    none of them are background, which is logged. Raises BadInput for a map of which that is all that is marked: it has other
    labels, and would pass for a head without a tumour.
    """

    def __init__(self, regions: Mapping[str, Sequence[int]], keys: Sequence[str] = ("label",)) -> None:
        super().__init__(keys)
        self.regions = [list(labels) for labels in regions.values()]
        self.told: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """float32, 0 or 1; what a MetaTensor knows stays."""
        d = dict(data)
        for key in self.keys:
            united = torch.cat([sum((d[key] == label).float() for label in labels) for labels in self.regions])
            self._check(d[key].as_subclass(Tensor)[0], (united.as_subclass(Tensor) > 0).any(dim=0), str(d.get("case", key)))
            d[key] = united
        return d

    def _check(self, labels: Tensor, united: Tensor, case: str) -> None:
        """Whether what is marked (H, W, D) is in a region, as far as anything is."""
        strange = labels[(labels != 0) & ~united].unique().tolist()
        if not strange:
            return
        values = listed([f"{value:g}" for value in strange])
        if not united.any():
            known = ", ".join(map(str, sorted({label for labels in self.regions for label in labels})))
            fact = f"all that its label map marks is {values}, and regions are of {known}"
            raise BadInput(f"case {case}: {fact}; give --regions with these labels, or leave the case out")
        if values not in self.told:
            self.told.add(values)
            logger.warning(f"case {case}: {values} of its label map is in none of the regions and counts as background")


class AugmentedPatch:
    """Cuts a sample from a prepared volume by MONAI's random transforms, seeded by the sample: the `patch` of a `PatchDataset`.

    transform: of `image` (C, H, W, D) and `label` (R, H, W, D), with random state all of its own; one that returns several
    samples gives the first.
    """

    def __init__(self, transform: Any) -> None:
        self.transform = Compose(transform)

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Float32 patches of both."""
        self.transform.set_random_state(seed=int(rng.integers(2**32)))
        drawn: Any = self.transform({"image": image.float(), "label": label.float()})
        sample = drawn[0] if isinstance(drawn, list) else drawn
        return {key: sample[key].as_subclass(Tensor).contiguous() for key in ("image", "label")}


def load_segmentation(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a segmentation network strictly; returns it.

    path: a state dict, with `module.` before its names or not, one under `state_dict` as the public BraTS checkpoints have it,
    or a checkpoint of this package, of which the averaged weights are taken. float16 files become the network's own type.
    Raises BadInput when the file is missing, broken, changed, or belongs to another network.
    """
    with torch.serialization.safe_globals(SCORES):
        content = checked(path)
    inner = content.get("state_dict", content) if isinstance(content, dict) else content
    state = averaged_of(content, path) if "objects" in inner else named_tensors(inner, path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = network.state_dict()
    if differing := [key for key in own | state if _shape(own.get(key)) != _shape(state.get(key))]:
        first = differing[0]
        fact = f"{first} is {_shape(state.get(first))} there and {_shape(own.get(first))} here"
        remedy = "give the conditions, regions and feature_size they were trained with"
        raise BadInput(f"{path}: weights of another network ({len(differing)} tensors differ, {fact}); {remedy}")
    network.load_state_dict(state)
    return network


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else "x".join(map(str, value.shape)) or "a scalar"
