# SPDX-License-Identifier: Apache-2.0
"""Downstream segmentation: a case with its real, its degraded and its synthesised modality, and the network over them."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import MapTransform, NormalizeIntensity
from torch import Tensor

from ..data.identifiers import FILE, Identifiers, check_same_studies
from ..data.meta_tensors import make_volume
from ..data.volumes import pad_to_multiple
from ..errors import BadInput
from ..inferers import MixedPrecisionInferer
from ..measurement import Degradation

REAL, DEGRADED = "real", "degraded"


def named_folders(predictions: str | Sequence[str]) -> dict[str, Path]:
    """`name=DIR`, or DIR alone, whose last part is the name; one or several -> name -> folder. Either may have more `=` in it.

    Raises BadInput when a folder does not exist or two have one name.
    """
    folders: dict[str, Path] = {}
    for text in [predictions] if isinstance(predictions, str | Path) else predictions:
        name, _, folder = str(text).partition("=")
        if not folder or "/" in name or Path(text).expanduser().is_dir():  # runs are put into folders such as lr=0.1
            name, folder = "", str(text)
        path = Path(folder).expanduser()
        name = name or path.resolve().name
        if not path.is_dir():
            raise BadInput(f"{folder}: no such folder; give --predictions the output_dir of an inference or evaluation")
        if name in folders or name in (REAL, DEGRADED):
            raise BadInput(f"predictions: the name {name} is taken; give others, as in ['average=DIR','fusion=DIR']")
        folders[name] = path
    return folders


class FindPredictionsd(MapTransform):
    """Adds `predictions`, the path of the case's `{case}/{case}_pred.nii.gz` in each folder; nothing without folders.

    Raises BadInput when one is missing: methods compare only on the same cases.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(("predictions",), allow_missing_keys=True)
        self.folders = dict(folders)
        for first, second in pairwise(self.folders.values()):
            both = (Identifiers(folder / FILE).entries.keys() for folder in (first, second))
            check_same_studies(first, second, set.intersection(*map(set, both)))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paths in the order of the folders."""
        case = data["case"]
        paths = [folder / case / f"{case}_pred.nii.gz" for folder in self.folders.values()]
        for name, path in zip(self.folders, paths, strict=True):
            if not path.is_file():
                raise BadInput(f"case {case}: {name} has no {path}; infer it, or leave {name} out of --predictions")
        return {**data, "predictions": [str(path) for path in paths]} if paths else dict(data)


class AddDegradedd(MapTransform):
    """Puts the degraded modality before the synthesised ones: `candidates` (1 + P, H, W, D), all within the head.

    replaced: channel of `image` (C, H, W, D) that is judged; degradation: what it was measured by, shown as the networks see
    it; None when nothing of it was measured, and it is 0 then. A candidate is 0 where all other channels are: a network leaves
    traces around the head, over which intensities must not be normalised.
    """

    def __init__(self, replaced: int, degradation: Degradation | None = None) -> None:
        super().__init__(("image", "predictions"), allow_missing_keys=True)
        self.replaced, self.degradation = replaced, degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """From the whole volume, so that blocks lie where they lie in a simulated measurement."""
        image: MetaTensor = data["image"]
        voxels = image.as_tensor()
        candidates = [self._degraded(voxels[self.replaced][None])]
        if "predictions" in data:
            candidates.append(data["predictions"].as_tensor())
        others = [index for index in range(len(voxels)) if index != self.replaced]
        head = (voxels[others] != 0).any(dim=0) if others else torch.ones_like(voxels[0], dtype=torch.bool)
        return {**data, "candidates": make_volume(torch.cat(candidates) * head, image.affine, image.meta)}

    def _degraded(self, real: Tensor) -> Tensor:
        """(1, H, W, D) -> same."""
        if self.degradation is None:
            return torch.zeros_like(real)
        padded = pad_to_multiple(real, self.degradation.factors)
        shown = self.degradation.shown(self.degradation(padded)[None])[0]
        return shown[:, : real.shape[1], : real.shape[2], : real.shape[3]]


class VersionsOfCased(MapTransform):
    """`image` (C, H, W, D) becomes (V, C, H, W, D): with its real channel `replaced`, then with every candidate in its place.

    Each version is normalised as in training: every channel by mean and deviation of what is not 0.
    """

    def __init__(self, replaced: int) -> None:
        super().__init__(("image", "candidates"))
        self.replaced = replaced
        self.normalize = NormalizeIntensity(nonzero=True, channel_wise=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Plain float32 tensors; the label keeps what is known of the grid."""
        versions = [data["image"].as_tensor()]
        for candidate in data["candidates"].as_tensor():
            version = versions[0].clone()
            version[self.replaced] = candidate
            versions.append(version)
        normal = torch.stack([torch.as_tensor(self.normalize(version)).as_subclass(Tensor) for version in versions])
        return {key: value for key, value in {**data, "image": normal}.items() if key not in ("candidates", "predictions")}


class SegmentationInferer(SlidingWindowInferer):
    """MONAI's sliding windows in `precision`, over (B, C, H, W, D) or over the versions of cases (B, V, C, H, W, D)."""

    def __init__(self, *args: Any, precision: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.window = MixedPrecisionInferer(precision)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits (..., R, H, W, D) in float32; what else an evaluator says of a case is not for the network."""
        every = inputs.flatten(0, -5)
        logits: Any = super().__call__(every, lambda patch: self.window(patch, network))
        return logits.unflatten(0, inputs.shape[:-4])


def channel_of(modality: str, conditions: Sequence[str]) -> int:
    """Where a modality stands among the conditions. Raises BadInput when it is none of them."""
    if modality not in conditions:
        raise BadInput(f"replaced {modality}: is none of the conditions {', '.join(conditions)}; give --replaced one of them")
    return list(conditions).index(modality)
