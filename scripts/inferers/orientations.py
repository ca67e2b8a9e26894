# SPDX-License-Identifier: Apache-2.0
"""A volume laid in other ways in the plane of its first two axes: the mean of what is said of all errs less than each.

Self-ensemble, number four of Timofte et al. 2016, "Seven ways to improve example-based single image super resolution".
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ..errors import BadInput
from ..measurement.degradations import Degradation
from ..measurement.slice_profile import SliceProfile

FIRST, SECOND, SWAPPED = 1, 2, 4  # what is done, in bits: mirrored along an axis, and then the axes exchanged
# The first two are a volume as it is and mirrored left to right; the first `UNTURNED` exchange no axes.
WAYS = (0, FIRST, SECOND, FIRST | SECOND, SWAPPED, SWAPPED | FIRST, SWAPPED | SECOND, SWAPPED | FIRST | SECOND)
UNTURNED = 4


def turned(volume: Tensor, way: int) -> Tensor:
    """(B, C, H, W, D), or (B, C, W, H, D) where axes are exchanged."""
    volume = volume.flip(mirrored(way))
    return volume.transpose(2, 3) if way & SWAPPED else volume


def turned_back(volume: Tensor, way: int) -> Tensor:
    """Inverse of `turned`."""
    return (volume.transpose(2, 3) if way & SWAPPED else volume).flip(mirrored(way))


def mean_of(translate: Callable[[Tensor], Tensor], inputs: Tensor, count: int, measurement: Degradation | None) -> Tensor:
    """The mean of what `translate` makes of volumes (B, C, H, W, D) in the first of eight ways, turned back.

    Raises BadInput where the axes that are turned were not measured alike from either end, or those exchanged differ.
    """
    if count == 1:
        return translate(inputs)
    if measurement is not None:
        _check(measurement, inputs.shape[2:], count)
    first = translate(inputs)
    total = first.double()  # sums without rounding: background stays what it was
    for way in WAYS[1:count]:
        total += turned_back(translate(turned(inputs, way).contiguous()), way)
    return (total / count).to(first.dtype)


def mirrored(way: int) -> list[int]:
    """Axes of (B, C, H, W, D) that a way mirrors."""
    return [axis for axis, bit in ((2, FIRST), (3, SECOND)) if way & bit]


def _check(measurement: Degradation, shape: Sequence[int], count: int) -> None:
    axes = one, other = measurement.slices(shape)[:2]
    if not isinstance(measurement, SliceProfile):  # blocks are measured alike on any number of voxels
        one, other = (axis and axis._replace(number=0, voxels=0) for axis in axes)
    if any(way & SWAPPED for way in WAYS[:count]) and one != other:
        raise BadInput(f"orientations {count}: its first two axes differ in what was measured; take 1 to {UNTURNED}")
    for axis in axes:
        if axis is not None and not np.allclose(axis.matrix(), axis.matrix()[::-1, ::-1]):
            raise BadInput(f"orientations {count}: slices of this scan lie otherwise seen from the other end; take 1")
