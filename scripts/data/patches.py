# SPDX-License-Identifier: Apache-2.0
"""Training samples: patches of volumes or slices that know their place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.transforms import MapTransform
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from ..errors import BadInput
from ..measurement.as_scanned import AsScanned
from ..measurement.channels import conditions_and_mask, positions
from ..measurement.degradations import Degradation
from ..measurement.intensity import tissue_range
from ..measurement.planes import axis_of
from .augmentation import Augmentation
from .cache import VolumeCache

TRIES = 10  # draws of a place with enough foreground
NONE = Augmentation()


class PrepareTrainingd(MapTransform):
    """Normalises a loaded case for training: `image` becomes conditions and mask (C + 1, H, W, D), `label` (1, H, W, D).

    With a degradation the label shares the measurement's intensity range, which is all that is known at inference;
    without one (another contrast) it has its own, by the median of its tissue.
    """

    def __init__(self, degradation: Degradation | AsScanned | None = None) -> None:
        super().__init__(("image", "label"))
        self.degradation = degradation

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the channels; plain tensors, which a cache can keep."""
        image, label = (torch.as_tensor(data[key])[None] for key in ("image", "label"))
        operator = None if self.degradation is None else self.degradation.of(data["image"])
        conditions, mask, scale = conditions_and_mask(image, operator)
        target = scale.of_channel(0) if self.degradation is not None else tissue_range(label)
        prepared = {"image": torch.cat([conditions, mask], dim=1)[0], "label": target.normalize(label)[0]}
        return {**data, **{key: value.as_subclass(Tensor).contiguous() for key, value in prepared.items()}}


class Patch(Protocol):
    """Cuts a sample from a prepared volume: image (C + 1, H, W, D), label (1, H, W, D), random numbers."""

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns `image` (network input), `label` and `base` (the first condition), both with one channel; maybe more."""


def checked_size(size: Sequence[int] | None, *counts: int) -> Sequence[int] | None:
    """The sides of a patch. Raises BadInput for another number of them than one of these, and for one below 1."""
    if size is not None and (len(size) not in counts or min(size) < 1):
        raise BadInput(
            f"patch {list(size)}: give {' or '.join(map(str, counts))} sides of 1 and more, or null for all there is"
        )
    return size


def filled(sample: dict[str, Tensor], size: Sequence[int] | None) -> dict[str, Tensor]:
    """A float32 sample of exactly `size`: where the volume was smaller, background (-1 everywhere) follows at the ends."""
    if size is not None:
        shape = sample["label"].shape[1:]
        pads = [pad for side, have in zip(reversed(size), reversed(shape), strict=True) for pad in (0, side - have)]
        sample = {key: torch.nn.functional.pad(value, pads, value=-1.0) for key, value in sample.items()}
    return {key: value.float().contiguous() for key, value in sample.items()}


def _start(full: Sequence[int], size: Sequence[int], block: Sequence[int], rng: np.random.Generator) -> list[int]:
    """A uniformly drawn corner at a multiple of the block, with room for `size` behind it."""
    return [
        factor * int(rng.integers((length - side) // factor + 1))
        for length, side, factor in zip(full, size, block, strict=True)
    ]


def _of_all(degradation: Degradation | AsScanned | None) -> Degradation | None:
    """The operator that all volumes share, if they do."""
    return degradation if isinstance(degradation, Degradation) else None


def _foreground(mask: Tensor) -> float:
    """Share of voxels above background in a +-1 mask."""
    return float((mask > 0).float().mean())


class VolumePatch:
    """A box of a volume, filled up where the volume is smaller. `size` None takes full volumes.

    block: boxes start at its multiples, as volumes do at inference. Interpolation hides where the measured blocks lie, and a
    U-Net can tell it only from the phase of its own strides. foreground: share of voxels above background that is wanted,
    because background teaches nothing; the last of `TRIES` boxes is taken as it is.

    The network input is conditions, `positions` in the full volume, mask: (C + 4, h, w, d). `start` is the box's corner,
    `mirrored` whether the volume was. degradation: what positions are of.
    """

    def __init__(
        self, size: Sequence[int] | None = None, block: Sequence[int] = (1, 1, 1), *, foreground: float = 0.0,
        augmentation: Augmentation = NONE, degradation: Degradation | AsScanned | None = None,
    ) -> None:  # fmt: skip
        self.size, self.block, self.foreground, self.augmentation = checked_size(size, 3), block, foreground, augmentation
        self.degradation = _of_all(degradation)

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Cut at a uniformly drawn place."""
        image, label, mirrored = self.augmentation.mirrored(image, label, rng)
        full = list(image.shape[1:])
        size = [min(side, length) for side, length in zip(self.size or full, full, strict=True)]
        for _ in range(TRIES):
            start = _start(full, size, self.block, rng)
            box = (slice(None), *(slice(first, first + side) for first, side in zip(start, size, strict=True)))
            part = image[box]
            if _foreground(part[-1]) >= self.foreground:
                break
        conditions = self.augmentation.varied(part[:-1], rng)
        x = torch.cat([conditions, positions(full, self.degradation, start, size), part[-1:]])
        place = {"start": torch.tensor(start), "mirrored": torch.tensor(mirrored)}
        return {**filled({"image": x, "label": label[box], "base": conditions[:1]}, self.size), **place}


class SlicePatch:
    """A slice of one plane with its `slab - 1` neighbours' conditions, cut to `size` in-plane (None: whole slices).

    The network input is `slab` groups of conditions from the lowest slice up, then positions and mask of the centre.
    Beyond the ends the last slice repeats, as at inference. block, foreground, degradation: as for `VolumePatch`.
    """

    def __init__(
        self, plane: str, size: Sequence[int] | None = None, slab: int = 1, *, block: Sequence[int] = (1, 1, 1),
        foreground: float = 0.0, augmentation: Augmentation = NONE, degradation: Degradation | AsScanned | None = None,
    ) -> None:  # fmt: skip
        self.augmentation, self.degradation = augmentation, _of_all(degradation)
        self.axis, self.size, self.reach, self.foreground = axis_of(plane), checked_size(size, 2), slab // 2, foreground
        self.block = [factor for axis, factor in enumerate(block) if axis != self.axis]

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Cut at a uniformly drawn slice and place."""
        image, label, _ = self.augmentation.mirrored(image, label, rng)
        slices, truth = (volume.movedim(self.axis + 1, 0) for volume in (image, label))  # (count, C, height, width)
        count, full = len(slices), slices.shape[2:]
        size = [min(side, length) for side, length in zip(self.size or full, full, strict=True)]
        for _ in range(TRIES):
            index = int(rng.integers(count))
            start = _start(full, size, self.block, rng)
            box: Any = (..., *(slice(first, first + side) for first, side in zip(start, size, strict=True)))
            if _foreground(slices[index, -1][box]) >= self.foreground:
                break
        neighbours = np.clip(np.arange(index - self.reach, index + self.reach + 1), 0, count - 1)
        slab = slices[box][torch.as_tensor(neighbours)]  # cut, then copied: nothing else is read
        conditions = self.augmentation.varied(slab[:, :-1].movedim(0, 1), rng).movedim(0, 1)
        place = self._place(list(image.shape[1:]), index, start, size)
        x = torch.cat([conditions.flatten(0, 1), place, slab[self.reach, -1:]])
        return filled({"image": x, "label": truth[index][box], "base": conditions[self.reach, :1]}, self.size)

    def _place(self, full: list[int], index: int, start: list[int], size: list[int]) -> Tensor:
        """Positions of the cut slice, (3, h, w)."""
        first, extent = list(start), list(size)
        first.insert(self.axis, index)
        extent.insert(self.axis, 1)
        return positions(full, self.degradation, first, extent).squeeze(self.axis + 1)


class PatchDataset(Dataset[dict[str, Any]]):
    """Patches of prepared volumes; sample `index` is the same whenever and wherever it is drawn.

    data, transform, cache_dir: cases, what prepares them and where the result is kept, as for `VolumeCache`; patch: cuts a
    sample; samples: length of an epoch. Every case is drawn once before any is drawn again. Nothing random is kept, so that a
    resumed run continues exactly.
    """

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Any, *, cache_dir: str | Path, patch: Patch, samples: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.volumes = VolumeCache(data, transform, cache_dir)
        self.patch, self.samples, self.seed = patch, samples, seed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        turn, place = divmod(index, len(self.volumes))
        case = int(np.random.default_rng((self.seed, 0, turn)).permutation(len(self.volumes))[place])
        rng = np.random.default_rng((self.seed, 1, index))
        return {**self.patch(**self.volumes[case], rng=rng), "index": index, "case": case}


class EpochSampler(DistributedSampler[Any]):
    """Counts samples through the whole training: epoch e yields e * n ... (e + 1) * n - 1, dealt out to the processes.

    MONAI's engines tell a `DistributedSampler` its epoch, which is all the state there is.
    """

    def __init__(self, dataset: PatchDataset, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False, drop_last=True)

    def __iter__(self) -> Any:
        count = len(self.dataset)  # type: ignore[arg-type]
        first = max(self.epoch - 1, 0) * count  # engines count epochs from 1
        return iter(range(first + self.rank, first + self.num_replicas * self.num_samples, self.num_replicas))
