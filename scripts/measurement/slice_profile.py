# SPDX-License-Identifier: Apache-2.0
"""What a scanner's slices measure: any thickness, spacing, gap or overlap, along each axis."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .degradations import Degradation
from .slices import Matrix, Slices


class SliceProfile(Degradation):
    """Slices of any thickness along any axis: a separable operator, one small matrix an axis.

    axes: how (H, W, D) are sampled, None where an axis is measured as it is. smooth, consistency: as for `BlockAverage`, which
    it equals where all slices are whole blocks. A coarse measurement y is laid out on the fine grid as `A+ y`, the smallest
    volume that it is measured of; by the same pseudo-inverses a result is projected exactly, `x + A+ (y - A x)`. Where slices
    overlap so much that A cannot be inverted, some of it stays unkept (`Slices.inverse`).
    """

    def __init__(
        self, axes: Sequence[Slices | None], smooth: bool = True, consistency: bool = True, positions: str = "slices"
    ) -> None:
        self.axes = tuple(axes)
        self.smooth, self.consistency, self.positions = smooth, consistency, positions
        self._measure = _tensors([None if axis is None else axis.matrix() for axis in self.axes])
        self._invert = _tensors([None if axis is None else axis.inverse() for axis in self.axes])
        self._cubic = _tensors([None if axis is None else axis.cubic() for axis in self.axes])
        self._nearest = [None if axis is None else torch.from_numpy(axis.nearest()) for axis in self.axes]
        # Blocks that may be cut: whole slices that are whole blocks, else the axis as it is.
        sides = [1 if axis is None else axis.whole or axis.voxels for axis in self.axes]
        self.factors = (sides[0], sides[1], sides[2])

    def slices(self, shape: Sequence[int]) -> Sequence[Slices | None]:
        """How each axis is sampled."""
        return self.axes

    def on(self, shape: Sequence[int]) -> "SliceProfile":
        """The same slices of part of a volume, which may be cut between whole blocks and along axes measured as they are."""
        axes = [
            Slices.covering(side // axis.whole, axis.whole) if axis is not None and axis.whole and side != axis.voxels else axis
            for axis, side in zip(self.axes, shape, strict=True)
        ]
        return self if tuple(axes) == self.axes else SliceProfile(axes, self.smooth, self.consistency, self.positions)

    def measure(self, volume: Tensor) -> Tensor:
        """One weighted mean a slice."""
        return along_axes(volume, self._measure)

    def repeat(self, measurement: Tensor) -> Tensor:
        """The smallest volume that it is measured of: zero where no slice was."""
        return along_axes(measurement, self._invert)

    def interpolate(self, measured: Tensor) -> Tensor:
        """Cubic convolution between the slices' centres, then projected."""
        coarse = self.measure(measured)
        volume = along_axes(coarse, self._cubic)
        return volume + self.repeat(coarse - self.measure(volume))

    def plain(self, measured: Tensor) -> Tensor:
        """Every voxel as the nearest slice: the smallest volume has holes where nothing was measured."""
        return self._repeated(self.measure(measured))

    def around(self, measured: Tensor) -> Tensor:
        """As `plain`."""
        return self.plain(measured)

    def foreground(self, measured: Tensor, background: float) -> Tensor:
        """Every voxel that a slice above background touches or is nearest to."""
        above = (self.measure(measured) > background).to(measured)
        touched = along_axes(above, [None if matrix is None else matrix.T for matrix in self._measure])
        return (self._repeated(above) + touched) > 0

    def _repeated(self, coarse: Tensor) -> Tensor:
        for axis, index in zip((-3, -2, -1), self._nearest, strict=True):
            coarse = coarse if index is None else coarse.index_select(axis, index.to(coarse.device))
        return coarse


def _tensors(matrices: Sequence[Matrix | None]) -> list[Tensor | None]:
    return [None if matrix is None else torch.from_numpy(np.ascontiguousarray(matrix)) for matrix in matrices]


def along_axes(volume: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Multiply: each matrix (n, m) along its axis of (..., H, W, D)."""
    for axis, matrix in zip((-3, -2, -1), matrices, strict=True):
        if matrix is not None:
            volume = (volume.movedim(axis, -1) @ matrix.to(volume).T).movedim(-1, axis)
    return volume
