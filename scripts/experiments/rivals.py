# SPDX-License-Identifier: Apache-2.0
"""What needs no network and must be beaten: interpolation, matched histograms, and boosted regression trees.

A rival sees what networks see (`conditions_and_mask`) and answers in the same units, from which intensities return likewise.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, gaussian_laplace
from torch import Tensor

from ..inferers.fused_score_inferer import projected
from ..measurement import AsScanned, BlockAverage, Degradation
from ..measurement.channels import conditions_and_mask, coordinates, inside, measured
from ..measurement.degradations import cubic

Features = npt.NDArray[np.float32]
SCALES = (1.0, 2.0, 4.0)  # voxels, of the Gaussians
VOXELS = 4000  # of the foreground of each training case
QUANTILES = np.linspace(0, 1, 257)
TREES = {"max_iter": 200, "learning_rate": 0.1, "early_stopping": False, "random_state": 0}


class Seen(NamedTuple):
    """A case as networks see it: conditions (C, H, W, D) and mask (H, W, D), which is True above background."""

    conditions: Tensor
    mask: npt.NDArray[np.bool_]


Rival = Callable[[Seen], Tensor]  # (1, H, W, D), about [-1, 1]; what it says outside the mask does not count


class RivalInferer(Inferer):
    """Stands in `evaluate.yaml` for the networks. degradation: as for `FusedScoreInferer`, whose projection this shares."""

    def __init__(self, rival: Rival, degradation: Degradation | AsScanned | None = None) -> None:
        super().__init__()
        self.rival, self.degradation = rival, degradation

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Raw conditions (B, C, H, W, D) to (B, 1, H, W, D) in the units of the first."""
        operator = None if self.degradation is None else self.degradation.of(inputs)
        image = inputs.as_subclass(Tensor)
        conditions, mask, scale = conditions_and_mask(image, operator)
        told = [self.rival(Seen(one, head[0].numpy() > 0)) for one, head in zip(conditions, mask, strict=True)]
        first = scale.of_channel(0)
        shown = None if operator is None else operator(first.normalize(measured(image, operator)[:, :1]))
        image = torch.stack(told).float().clamp(-1, 1)
        return first.restore(projected(image, shown, mask, inside(conditions, mask), operator))


def interpolations(degradation: Degradation | AsScanned) -> dict[str, Inferer]:
    """Rivals that need no training, by name; without a projection but for the last, which shows what that is worth."""
    found: dict[str, Inferer] = {}
    if isinstance(degradation, BlockAverage):
        fine = [float(factor) for factor in degradation.factors]
        found = {
            "repeat": Interpolation(lambda volume: volume),
            "trilinear": Interpolation(lambda v: F.interpolate(degradation.measure(v), scale_factor=fine, mode="trilinear")),
            "cubic": Interpolation(lambda volume: cubic(degradation.measure(volume), degradation.factors)),
        }
    return {**found, "cubic, consistent": RivalInferer(lambda seen: seen.conditions[:1], degradation)}


class Interpolation(Inferer):
    """The first condition through a function (B, 1, H, W, D) -> same."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Raw conditions (B, C, H, W, D) to (B, 1, H, W, D)."""
        return self.function(inputs.as_subclass(Tensor)[:, :1].float())


class Samples(NamedTuple):
    """Voxels of the training cases' foreground: features (n, F), position (n, 3), first condition and target (n,)."""

    features: Features
    position: Features
    base: Features
    target: Features

    @classmethod
    def of(cls, prepared: Iterable[Mapping[str, Tensor]], voxels: int = VOXELS) -> "Samples":
        """Some of every case that `PrepareTrainingd` prepared, the same in every run."""
        parts = []
        for index, case in enumerate(prepared):
            seen = Seen(case["image"][:-1], case["image"][-1].numpy() > 0)
            inside = np.flatnonzero(seen.mask)
            chosen = np.random.default_rng((0, index)).choice(inside, min(voxels, inside.size), replace=False)
            of_all = (*features(seen), seen.conditions[0].numpy()[None], case["label"].numpy())
            parts.append([volumes.reshape(len(volumes), -1)[:, chosen].T for volumes in of_all])
        columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return cls(columns[0], columns[1], columns[2][:, 0], columns[3][:, 0])


def features(seen: Seen) -> tuple[Features, Features]:
    """Of every voxel: conditions, their smoothings, gradient magnitudes and Laplacians (F, H, W, D); and its place (3, ...)."""
    maps = []
    for condition in seen.conditions.numpy():
        maps.append(condition)
        for scale in SCALES:
            maps += [
                filtered(condition, scale) for filtered in (gaussian_filter, gaussian_gradient_magnitude, gaussian_laplace)
            ]
    return np.stack(maps).astype(np.float32), coordinates(seen.mask.shape).numpy()


def learned(samples: Samples, degradation: Degradation | AsScanned | None) -> dict[str, Inferer]:
    """Rivals that were fitted to the training cases, by name. With a measurement trees correct its interpolation, then it is
    kept exactly; without one they say the target itself, beside its mean and the first condition with a matched histogram.
    """
    rivals: dict[str, Rival] = {}
    if degradation is None:
        mean = float(samples.target.mean())
        condition, target = (np.quantile(values, QUANTILES) for values in (samples.base, samples.target))
        rivals["mean intensity"] = lambda seen: torch.full_like(seen.conditions[:1], mean)
        rivals["matched histogram"] = partial(_matched, condition=condition, target=target)
    residual = degradation is not None
    rivals["trees"] = _trees(samples, residual=residual, placed=False)
    rivals["trees with position"] = _trees(samples, residual=residual, placed=True)
    return {name: RivalInferer(rival, degradation) for name, rival in rivals.items()}


def _matched(seen: Seen, condition: npt.NDArray[Any], target: npt.NDArray[Any]) -> Tensor:
    """The first condition through the map that takes its quantiles over the training cases to those of the target."""
    return torch.from_numpy(np.interp(seen.conditions[:1].numpy(), condition, target))


def _trees(samples: Samples, *, residual: bool, placed: bool) -> Rival:
    from sklearn.ensemble import HistGradientBoostingRegressor  # comes with nilearn; here, because it takes a second to import

    columns = [samples.features, samples.position] if placed else [samples.features]
    model = HistGradientBoostingRegressor(**TREES)
    model.fit(np.concatenate(columns, axis=1), samples.target - samples.base if residual else samples.target)

    def rival(seen: Seen) -> Tensor:
        maps = np.concatenate(features(seen)) if placed else features(seen)[0]
        told = seen.conditions[:1].clone() if residual else torch.zeros_like(seen.conditions[:1])
        told[0, torch.from_numpy(seen.mask)] += torch.from_numpy(model.predict(maps[:, seen.mask].T)).float()
        return told

    return rival
