# SPDX-License-Identifier: Apache-2.0
"""What weights have seen: properties of their training volumes, beside them, and how far another volume lies from these.

Without PyTorch, as the doctor asks here too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..bundle import bundle_root
from ..errors import BadInput
from ..files import read_json, sha256, write_json

logger = logging.getLogger(__name__)
Volume = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

CELL_MM = 4.0  # properties are of means over cells of about this side: whatever the voxels, heads are compared alike
DARK, BRIGHT, TISSUE = 0.001, 0.999, 0.1  # quantiles that are 0 and 1 of brightness, and from where on it is tissue
ALIKE = 1e-6  # a property of which training volumes differ by less tells nothing of others
SHRUNK = 0.2  # of the correlations towards none: there are hardly more training volumes than correlations
CALM, MARGIN = 0.99, 1.1  # a volume is doubted beyond this quantile of training volumes, each left out in turn, and a margin
REFUSED = 1.3  # times the distance of a doubt: what the networks make of such volumes is none of what was asked for
SUFFIX = ".seen.json"
GUIDE = "docs/any_scan.md#when-not-to-trust-it"
MAKE = "make it anew (score-fusion seen) or delete it"


class Property(NamedTuple):
    """How a property is told, and the least spread that counts. less: what it may mean when it is below what was seen."""

    told: str
    floor: float
    less: str = ""
    power: bool = False  # whether it is a logarithm


def _quantile(share: str) -> Property:
    return Property(f"{share} of its tissue is darker than {{:.0%}} of its bright end", 0.02)


PROPERTIES = {
    "empty": Property("{:.0%} of its field is background", 0.02, "not skull-stripped, or no head"),
    "litres": Property("its content has {:.2g} litres", 0.02, power=True),
    "cut": Property("{:.0%} of the sides of its box are tissue", 0.02),
    "rim": Property("its rim has {:.2g} of the brightness of its middle", 0.02),
    "surface": Property("its surface is {:.2g} times that of a cube", 0.02),
    "q10": _quantile("a tenth"),
    "q25": _quantile("a quarter"),
    "q50": _quantile("half"),
    "q75": _quantile("three quarters"),
    "q90": _quantile("nine tenths"),
    "skewness": Property("its brightness has a skewness of {:.2g}", 0.1),
    "rough": Property("its fine texture has {:.2g} of its variance", 0.03, power=True),
    "coarse": Property("its coarse texture has {:.2g} of its variance", 0.03, power=True),
    "grain": Property("its finest texture has {:.2g} of its variance", 0.03, power=True),
}


def properties(voxels: Volume, spacing: Sequence[float]) -> Vector:
    """Of a volume (H, W, D), voxels in mm: a number for each of `PROPERTIES`. Gain, offset and empty margins change none."""
    cells = [max(min(round(CELL_MM / mm), side), 1) for mm, side in zip(spacing, voxels.shape, strict=True)]
    mean = _means(voxels, cells)
    low = np.quantile(mean, DARK)
    above = mean[mean > low]
    scale = float(np.quantile(above, BRIGHT) - low) if above.size else 1.0
    tissue = (mean - low) / scale > TISSUE
    if not tissue.any():
        return np.zeros(len(PROPERTIES))
    box = tuple(slice(found[0], found[-1] + 1) for found in map(np.flatnonzero, _along_axes(tissue)))
    within = np.maximum(_means(np.square(voxels, dtype=np.float64), cells) - mean**2, 0)[box] / scale**2
    bright, tissue, field = ((mean - low) / scale)[box], tissue[box], mean[box]
    values = bright[tissue]
    inner = _inner(tissue)
    quantiles, variance = np.quantile(values, [0.1, 0.25, 0.5, 0.75, 0.9]), max(float(values.var()), 1e-9)
    halves = [2 if side > 1 else 1 for side in bright.shape]
    rim, count = tissue & ~inner, int(tissue.sum())
    return np.array([
        np.unique(field, return_counts=True)[1].max() / field.size,
        np.log10(count * np.prod([mm * cell for mm, cell in zip(spacing, cells, strict=True)]) / 1e6),
        np.concatenate([np.moveaxis(tissue, axis, 0)[[0, -1]].ravel() for axis in range(3)]).mean(),
        np.median(bright[rim]) / quantiles[2],
        rim.sum() / (6 * count ** (2 / 3)),
        *quantiles,
        ((values - values.mean()) ** 3).mean() / variance**1.5,
        _roughness(bright, tissue, variance),
        _roughness(_means(bright, halves), _means(tissue, halves) > 0.99, variance),
        np.log10((within[inner].mean() if inner.any() else 0.0) / variance + 1e-4),
    ])  # fmt: skip


def _means(voxels: npt.NDArray[Any], cells: Sequence[int]) -> Vector:
    """Over cells of so many voxels a side; what is left over at the ends does not count."""
    whole = voxels[tuple(slice(side // cell * cell) for side, cell in zip(voxels.shape, cells, strict=True))]
    shape = [length for side, cell in zip(whole.shape, cells, strict=True) for length in (side // cell, cell)]
    return np.asarray(whole.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float64))


def _along_axes(mask: Mask) -> list[Mask]:
    return [np.asarray(np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1).any(axis=1)) for axis in range(3)]


def _inner(mask: Mask) -> Mask:
    """Voxels whose six neighbours are in the mask too."""
    padded = np.pad(mask, 1)
    shifted = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
    return np.logical_and.reduce([mask, *shifted])


def _roughness(bright: Vector, tissue: Mask, variance: float) -> float:
    """Logarithm of half the mean squared difference between neighbours in the tissue, to the variance."""
    total, pairs = 0.0, 0
    for axis in range(3):
        values, inside = np.moveaxis(bright, axis, 0), np.moveaxis(tissue, axis, 0)
        both = inside[1:] & inside[:-1]
        total, pairs = total + float((np.diff(values, axis=0)[both] ** 2).sum()), pairs + int(both.sum())
    return float(np.log10(total / max(pairs, 1) / 2 / variance + 1e-6))


class Seen(NamedTuple):
    """What weights have seen of one condition: the properties' median, spread, least and largest, the inverse of their
    correlations, and the distances from which on a volume is doubted and, where nothing of it is kept, refused.
    """

    median: Vector
    spread: Vector
    least: Vector
    largest: Vector
    precision: Vector
    doubt: float
    refuse: float

    @classmethod
    def of(cls, samples: Vector) -> Seen:
        """From the properties of training volumes, (n, properties). Raises BadInput for fewer than ten."""
        if len(samples) < 10:
            raise BadInput(f"{len(samples)} training volumes: at least ten tell what is usual; give more")
        left_out = [cls._fitted(np.delete(samples, one, axis=0)).distance(samples[one]) for one in range(len(samples))]
        doubt = MARGIN * float(np.quantile(left_out, CALM))
        return cls._fitted(samples)._replace(doubt=doubt, refuse=REFUSED * doubt)

    @classmethod
    def _fitted(cls, samples: Vector) -> Seen:
        median, floors = np.median(samples, axis=0), np.array([one.floor for one in PROPERTIES.values()])
        varied = samples.std(axis=0)
        spread = np.where(varied > ALIKE * floors, np.maximum(varied, floors), 1 / ALIKE)
        z = (samples - median) / spread
        correlations = (1 - SHRUNK) * z.T @ z / len(z) + SHRUNK * np.eye(len(median))
        precision = np.linalg.inv(correlations).astype(np.float64)
        return cls(median, spread, samples.min(axis=0), samples.max(axis=0), precision, np.inf, np.inf)

    def distance(self, found: Vector) -> float:
        """Mahalanobis', over the root of the number of properties: about 1 for a training volume."""
        z = (found - self.median) / self.spread
        return float(np.sqrt(z @ self.precision @ z / len(z)))

    def like(self, found: Vector) -> bool:
        """Whether a volume is like those: nothing of it is doubted."""
        return self.distance(found) <= self.doubt

    def unusual(self, found: Vector) -> str:
        """The property that lies furthest from what was seen, in words; of what is unusual together, that which adds most."""
        z = (found - self.median) / self.spread
        beyond = np.maximum(self.least - found, found - self.largest) / self.spread
        alone = bool(beyond.max() > 0)
        place = int((beyond if alone else z * (self.precision @ z)).argmax())
        one = list(PROPERTIES.values())[place]
        value, least, largest = (10**v if one.power else v for v in (found[place], self.least[place], self.largest[place]))
        number = one.told[one.told.index("{") : one.told.index("}") + 1]
        means = f"{one.less}: " if one.less and found[place] < self.least[place] else ""
        range_seen = f"the weights saw {number.format(least)} to {number.format(largest)}"
        return f"{means}{one.told.format(value)}; {range_seen}{'' if alone else ', but not with all else that it is'}"

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Seen:
        """Of `content()`. Raises KeyError, TypeError or ValueError for anything else."""
        count = len(PROPERTIES)
        rows = (np.array(content[key], dtype=np.float64).reshape(count) for key in ("median", "spread", "least", "largest"))
        median, spread, least, largest = rows
        precision = np.array(content["precision"], dtype=np.float64).reshape(count, count)
        return cls(median, spread, least, largest, precision, float(content["doubt"]), float(content["refuse"]))

    def content(self) -> dict[str, Any]:
        """As plain numbers of four digits."""
        return {key: _rounded(value) for key, value in self._asdict().items()}


def _rounded(value: Any) -> Any:
    return [_rounded(one) for one in value] if np.ndim(value) else float(f"{value:.4g}")


def seen_file(weights: str | Path) -> Path:
    """Where it lies what weights have seen: beside them."""
    return Path(weights).expanduser().with_suffix(SUFFIX)


def write_seen(weights: str | Path, task: str, samples: Mapping[str, Vector]) -> Path:
    """Write what weights have seen. samples: by condition, (n, properties); returns the path."""
    conditions = {name: Seen.of(of_one).content() for name, of_one in samples.items()}
    counts = {"volumes": len(next(iter(samples.values()))), "properties": list(PROPERTIES)}
    content = {"weights": sha256(Path(weights).expanduser()), "task": task, **counts, "conditions": conditions}
    write_json(path := seen_file(weights), content)
    return path


def read_seen(weights: str | Path) -> dict[str, Seen]:
    """What weights have seen, by condition; empty where no file says it. Raises BadInput when it is damaged or of others."""
    path, weights = seen_file(weights), Path(weights).expanduser()
    if not (path.is_file() and weights.is_file()):
        return {}
    content = read_json(path, MAKE)
    if content.get("weights") != sha256(weights):
        raise BadInput(f"{path}: of other weights than {weights.name}; {MAKE}")
    try:
        seen = {name: Seen.read(one) for name, one in content["conditions"].items()}
        if not seen or content["properties"] != list(PROPERTIES):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: does not say what weights have seen; {MAKE}") from error
    return seen


def judge(name: str, seen: Seen, found: Vector, *, refusing: bool) -> list[str]:
    """The doubt about a condition with these properties, if there is one. Raises BadInput for one far outside if `refusing`."""
    distance = seen.distance(found)
    if refusing and distance > seen.refuse:
        fact, task = f"{name} is unlike all that the weights saw: {seen.unusual(found)}", _task_that_saw(name, found)
        remedy = f"those of --task {task} saw such scans" if task else f"give scans like theirs ({GUIDE})"
        raise BadInput(f"{fact}; {remedy}, or --force, and do not trust the result")
    return [f"{name} is unlike what the weights saw: {seen.unusual(found)}"] if not seen.like(found) else []


def _task_that_saw(name: str, found: Vector) -> str:
    """The task of this condition alone whose shipped weights saw volumes with these properties, if there is one."""
    for file in sorted(Path(bundle_root(), "models").glob(f"*{SUFFIX}")):
        known = read_seen(file.with_name(file.name.removesuffix(SUFFIX) + ".pt"))
        if known.keys() == {name} and known[name].like(found):
            return str(read_json(file, MAKE)["task"])
    return ""


class DoubtUnseend:
    """Compares the conditions of a case that `LoadVolumesd` read with what the weights have seen.

    weights: their file, beside which NAME.seen.json lies; nothing is said where there is none, or no weights are used.
    degradation: as the loader has it. force: let pass what lies far outside. Lines are added to meta `doubts`, and stand alone
    in meta `unseen` (JSON list).
    Raises BadInput for a file that is damaged, and, where nothing was measured of the target, for a volume far outside.
    """

    def __init__(
        self, weights: str | Path | None, degradation: Any = None, *, force: bool = False, key: str = "image"
    ) -> None:  # fmt: skip
        self.seen = {} if weights is None else read_seen(weights)
        self.degradation, self.force, self.key = degradation, force, key

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The same case, with more in the meta of its image where that is unusual."""
        return self.judged(data, self.seen, channel_properties(data[self.key], self.degradation) if self.seen else [])

    def judged(self, data: Mapping[Any, Any], known: Mapping[str, Seen], properties: Sequence[Vector]) -> dict[Any, Any]:
        """The same case. known: what weights saw of each condition; properties: those of the case's."""
        image = data[self.key]
        refusing = self.degradation is None and not self.force
        pairs = zip(known.items(), properties, strict=False)
        lines = [line for (name, seen), found in pairs for line in judge(name, seen, found, refusing=refusing)]
        for line in lines:
            logger.warning("case %s: %s", data.get("case"), line)
        if lines:
            image.meta["doubts"] = json.dumps([*json.loads(image.meta.get("doubts", "[]")), *lines])
            image.meta["unseen"] = json.dumps(lines)
        return dict(data)


def channel_properties(image: Any, degradation: Any) -> list[Vector]:
    """`properties` of every channel of a MetaTensor (C, H, W, D), the measurement on its own grid."""
    channels = image.as_tensor()
    spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
    found = [properties(channel.numpy(), spacing) for channel in channels[degradation is not None :]]
    if degradation is None:
        return found
    f_h, f_w, f_d = degradation.factors
    coarse = degradation.of(image).plain(channels[:1])[0, ::f_h, ::f_w, ::f_d]
    return [properties(coarse.numpy(), spacing * degradation.factors), *found]
