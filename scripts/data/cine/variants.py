# SPDX-License-Identifier: Apache-2.0
"""Loops as another heart might look: turned by any angle, smaller, in another contrast. Few slices are soon known by heart."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, gaussian_filter

from ...errors import BadInput
from ..doubts import by
from .cine import SMALLEST_SIDE, Cine

SMALLEST, LARGEST = 0.55, 1.1  # of the size
STEEPEST = 0.5  # logarithm of the exponent of a contrast, either way
BLUR = 0.5  # standard deviation in new pixels before they are taken: none finer than they can show
MULTIPLE = 4  # sides are whole blocks


def varied(cine: Cine, rng: np.random.Generator) -> Cine:
    """Every slice in a way of its own, all of one size, that covers what is bright in any. Raises BadInput as `bright_part`."""
    darkest = cine.voxels.min()
    voxels = cine.voxels[bright_part(cine)] - darkest
    zoom = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
    sides = [round(side * zoom) // MULTIPLE * MULTIPLE for side in voxels.shape[:2]]
    loops = [_turned(voxels[:, :, index], sides, zoom, rng) for index in range(voxels.shape[2])]
    return replace(cine, voxels=np.stack([_recoloured(loop, rng) for loop in loops], axis=2) + darkest)


def bright_part(cine: Cine) -> tuple[slice, slice]:
    """The box (X, Y) that is varied. Raises BadInput where nothing is bright, or too little to be made smaller."""
    if cine.voxels.min() == cine.voxels.max():
        raise BadInput(f"{cine.source}: these slices hold a single value; there is nothing to vary")
    box = _bright_box(cine.voxels - cine.voxels.min())
    sides = [min(part.stop, side) - part.start for part, side in zip(box, cine.voxels.shape[:2], strict=True)]
    if round(min(sides) * SMALLEST) // MULTIPLE * MULTIPLE < SMALLEST_SIDE:
        raise BadInput(f"{cine.source}: its bright part is {by(sides)} pixels, too small to be varied; leave out --variants")
    return box


def _bright_box(voxels: npt.NDArray[np.float32], share: float = 0.1, margin: int = 12) -> tuple[slice, slice]:
    """Around what is above a share of the brightest, on average over time, in any slice."""
    mean = voxels.mean(axis=3).max(axis=2)
    bright = mean > share * np.quantile(mean, 0.999)
    spans = [np.flatnonzero(bright.any(axis=1 - axis)) for axis in (0, 1)]
    first, second = (slice(max(int(span[0]) - margin, 0), int(span[-1]) + margin + 1) for span in spans)
    return first, second


def _turned(
    loop: npt.NDArray[np.float32], sides: list[int], zoom: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:  # fmt: skip
    angle = rng.uniform(0, 2 * np.pi)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = (np.array(loop.shape[:2]) - 1) / 2 - matrix @ ((np.array(sides) - 1) / 2)
    width = BLUR * max(1 / zoom - 1, 0)
    frames = [gaussian_filter(frame, width) if width > 0 else frame for frame in np.moveaxis(loop, -1, 0)]
    taken = [affine_transform(frame, matrix, middle, output_shape=tuple(sides), order=3, mode="reflect") for frame in frames]
    return np.stack(taken, axis=-1).clip(0, None)


def _recoloured(loop: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    if not (top := float(np.quantile(loop, 0.999))) > 0:  # next to nothing in it
        return loop
    exponent = float(np.exp(rng.uniform(-STEEPEST, STEEPEST)))
    return (top * (loop / top) ** exponent).astype(np.float32)
