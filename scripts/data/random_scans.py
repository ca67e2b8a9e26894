# SPDX-License-Identifier: Apache-2.0
"""Training samples of scans of any kind: contrast, slice thickness, gap and voxel size are drawn anew for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from ..files import read_json
from ..measurement.channels import between_slices
from ..measurement.intensity import SPAN
from ..measurement.slice_profile import SliceProfile, along_axes
from ..measurement.slices import Slices
from .patches import TRIES, checked_size, filled
from .random_contrast import bright, painted, recoloured, varied, with_noise
from .volumes import read_volume

KINDS = ("volume", "slices", "labels")  # sharp everywhere; sharp within its axial slices alone; a label map to paint
BEYOND = 2  # slices around a patch that its interpolation sees
ALL_AXES, MEASURED_BLOCKS, GAPS, GAUSSIAN = 0.35, 0.5, 0.4, 0.2  # shares of draws
EVERYWHERE, DARK = 0.3, 1e-4  # share of draws whose noise has no background, and what is background in others
THICKEST = 8.0  # voxels
GAINS = (0.6, 1.1)  # of a patch's bright end over that of its volume
ZOOM = 1.35  # largest change of the size of voxels, each way


def scans_of(datalist: str, split: str = "train") -> list[dict[str, Any]]:
    """Training volumes of any contrast from a JSON file: {"training": [{"image": path, "kind": one of KINDS}, ...]}.

    Volumes that are listed several times are drawn so much more often. Raises BadInput for another kind, and for none.
    """
    key = "training" if split == "train" else "validation"
    entries = read_json(Path(datalist), "write it by score-fusion scans").get(key)
    if not entries:
        raise BadInput(f"{datalist}: lists no volumes for {key}; write it by score-fusion scans")
    for entry in entries:
        if entry.get("kind") not in KINDS:
            raise BadInput(f"{datalist}: {entry.get('image')} is of kind {entry.get('kind')}; choose one of {', '.join(KINDS)}")
    return [
        {"case": entry["image"], "image": entry["image"], "label": entry["image"], "kind": entry["kind"]} for entry in entries
    ]


class PrepareScand:
    """Reads a volume of `scans_of`: `image` (1, H, W, D) in RAS and its kind (1,), `label`."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """In [0, 1] but for label maps; air and what is darker than it is 0."""
        volume = read_volume(data["image"]).as_tensor().clone()
        kind = KINDS.index(data["kind"])
        if data["kind"] != "labels":
            volume = bright(volume[0].clamp(min=0))[None]
        return {**data, "image": volume.contiguous(), "label": torch.tensor([float(kind)])}


class ScanPatch:
    """A random scan and the truth behind it: boxes of a size (h, w, d), or images (h, d), which are slices of a plane.

    Axes are permuted and turned round at random so that thick slices lie across the last one: whichever plane the images
    are of, it is cut across the second. A volume that is sharp only within its slices gives such images of them. The network
    input is the interpolated measurement, `positions` between slices and the mask. foreground: as for `VolumePatch`.
    """

    def __init__(self, size: Sequence[int], *, foreground: float = 0.0) -> None:
        checked_size(size, 2, 3)
        self.size, self.foreground = tuple(size), foreground
        self.box = self.size if len(size) == 3 else (size[0], 1, size[1])

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """image: (1, H, W, D), label: (1,), as `PrepareScand` gives them; random numbers."""
        kind = KINDS[int(label)]
        volume = image[0].permute(*_order(kind, rng))
        slices = _drawn_slices(kind, rng)
        zoom = float(np.exp(rng.uniform(-np.log(ZOOM), np.log(ZOOM))))
        box, start = self._box(volume, slices, rng, zoom=zoom, nearest=kind == "labels")
        contrast = painted if kind == "labels" else recoloured
        truth = varied(contrast(box, rng), rng) * float(rng.uniform(*GAINS))
        return self._sample(truth, slices, start, lambda measurement: with_noise(measurement, rng), rng.random() < EVERYWHERE)

    def _box(
        self, volume: Tensor, slices: Sequence[Slices | None], rng: np.random.Generator, *, zoom: float = 1.0,
        nearest: bool = False,
    ) -> tuple[Tensor, list[int]]:  # fmt: skip
        """A box of random voxels with whole slices and some around the patch, and where the patch begins in it."""
        start = [0 if axis is None else round(BEYOND * axis.spacing + rng.uniform(0, axis.spacing)) for axis in slices]
        sides = [
            side if axis is None else Slices.covering(int(np.ceil((side + first) / axis.spacing)) + BEYOND, axis.spacing).voxels
            for side, first, axis in zip(self.box, start, slices, strict=True)
        ]
        taken = [
            1 if side == 1 else max(min(round(side * zoom), have), 2) for side, have in zip(sides, volume.shape, strict=True)
        ]
        for _ in range(TRIES):
            corner = [int(rng.integers(have - side + 1)) for have, side in zip(volume.shape, taken, strict=True)]
            part = volume[tuple(slice(first, first + side) for first, side in zip(corner, taken, strict=True))]
            if float((part > 0).float().mean()) >= self.foreground:
                break
        flips = [axis for axis in range(3) if rng.random() < 0.5]
        return resized(part.float().flip(flips), sides, nearest=nearest), start

    def _sample(
        self, truth: Tensor, slices: Sequence[Slices | None], start: Sequence[int], noisy: Callable[[Tensor], Tensor],
        everywhere: bool,
    ) -> dict[str, Tensor]:  # fmt: skip
        """noisy: what a measurement becomes; everywhere: whether all is foreground, as where noise has no background."""
        fitted = [
            None if axis is None else axis._replace(number=int(side / axis.spacing + 1e-6), voxels=side)
            for axis, side in zip(slices, truth.shape, strict=True)
        ]
        scan = SliceProfile(fitted)
        measured = scan.repeat(noisy(scan.measure(truth[None, None])))
        foreground = torch.ones_like(truth[None]) > 0 if everywhere else scan.foreground(measured, DARK)[0]
        base = scan.interpolate(measured)[0] * SPAN - 1
        channels = torch.cat([base, between_slices(truth.shape, fitted), torch.where(foreground, 1.0, -1.0)])
        box = (slice(None), *(slice(first, first + side) for first, side in zip(start, self.box, strict=True)))
        sample = {"image": channels[box], "label": (truth[None] * SPAN - 1)[box], "base": base[box]}
        return filled({key: value.reshape(len(value), *self.size) for key, value in sample.items()}, self.size)


def drawn_whole(image: Tensor, label: Tensor, rng: np.random.Generator) -> Tensor:
    """A random scan of a whole volume (1, H, W, D), every voxel as the nearest slice: (H, W, D); label: its kind, (1,)."""
    kind = KINDS[int(label)]
    volume = varied((painted if kind == "labels" else recoloured)(image[0], rng), rng)
    if kind == "slices":  # it is a scan already
        return with_noise(volume, rng)
    order = _order(kind, rng)
    turned = volume.permute(*order)
    axes = [
        axis and axis._replace(number=max(int(side / axis.spacing), 1), voxels=side)
        for axis, side in zip(_drawn_slices(kind, rng), turned.shape, strict=True)
    ]
    scan = SliceProfile(axes)
    measured = scan.repeat(with_noise(scan.measure(turned), rng))
    return scan.plain(measured).permute(*np.argsort(order).tolist()).contiguous()


class OwnPatch(ScanPatch):
    """Images of a scan's own slices as they are, degraded along an axis within them as the scan is across them.

    size: (h, d); axis: the scan's slices, in voxels within them.
    """

    def __init__(self, size: Sequence[int], axis: Slices) -> None:
        super().__init__(size)
        self.axis = axis

    def __call__(self, image: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:  # type: ignore[override]
        """image: slices (H, W, number), 0 where nothing is; random numbers."""
        volume, slices = image.permute(*_order("slices", rng)), [None, None, self.axis]
        box, start = self._box(volume, slices, rng)
        return self._sample(box, slices, start, lambda measurement: measurement, False)


def _order(kind: str, rng: np.random.Generator) -> list[int]:
    """Axes of a volume in the order of a sample: slices that alone are sharp are cut across the second."""
    if kind != "slices":
        return [int(axis) for axis in rng.permutation(3)]
    one, other = (int(axis) for axis in rng.permutation(2))
    return [one, 2, other]


def _drawn_slices(kind: str, rng: np.random.Generator) -> list[Slices | None]:
    """How each axis is sampled: across the last one, or along all of them alike."""
    every = rng.random() < ALL_AXES
    spacing = float(np.exp(rng.uniform(np.log(1.8), np.log(4.5 if every else THICKEST))))
    if rng.random() < MEASURED_BLOCKS:
        spacing = float(rng.choice([3, 4, 4, 4, 4] if every else [3, 4, 4, 5, 6]))
    thickness = spacing * float(rng.uniform(0.7, 1.0) if rng.random() < GAPS else 1.0)
    one = Slices(1, spacing, thickness, spacing / 2, 1, "gaussian" if rng.random() < GAUSSIAN else "box")
    blurred = {0, 2} if kind == "slices" else {0, 1, 2}
    return [one if axis in (blurred if every else {2}) else None for axis in range(3)]


def resized(volume: Tensor, sides: Sequence[int], *, nearest: bool = False) -> Tensor:
    """(h, w, d) on as many voxels as wanted, over the same field: linear, or as wide as the voxels where they grow."""
    if nearest:
        index = [((torch.arange(n) + 0.5) * have / n).long() for n, have in zip(sides, volume.shape, strict=True)]
        return volume[index[0]][:, index[1]][:, :, index[2]]
    return along_axes(volume, [_linear(have, n) for have, n in zip(volume.shape, sides, strict=True)])


def _linear(have: int, wanted: int) -> Tensor | None:
    if have == wanted:
        return None
    width = max(have / wanted, 1.0)
    place = (torch.arange(wanted) + 0.5) * have / wanted - 0.5
    weights = (1 - (place[:, None] - torch.arange(have)[None]).abs() / width).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
