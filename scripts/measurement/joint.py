# SPDX-License-Identifier: Apache-2.0
"""Several scans of one contrast as they were acquired, each on its own oblique grid, as one measurement of one volume."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .slices import SHAPES, Slices, credible, thickest

Affine = npt.NDArray[np.floating[Any]]

ITERATIONS = 40
ENOUGH = 1e-4  # of the scans' range: a projection that keeps them so far is done
FLAT = 1e-5  # share of what is missed that any change could still mend: the scans contradict each other in the rest
WHOLE = 0.85  # share of a scan's voxel that must lie within the volume, else that says too little of it


class AcquiredScan:
    """`A` of one scan: what its voxels, wherever they lie, measure of a fine volume, and its adjoint.

    grid: affine (4, 4) to mm and shape (h, w, d) of the scan; volume: of the fine volume. thickness: of slices in mm, along the
    scan's coarsest axis; voxels are as wide as their spacing along the others. profile: of the slices, as `Slices` has it.
    A voxel is the weighted mean of points on its own axes, about as dense as the volume's voxels, between which the volume is
    linear: where scan and volume share their axes and its voxels are whole blocks, that is `BlockAverage`.
    """

    def __init__(
        self, grid: tuple[Affine, Sequence[int]], volume: tuple[Affine, Sequence[int]], *,
        thickness: float | None = None, profile: str = SHAPES[0],
    ) -> None:  # fmt: skip
        affine, self.shape = grid[0], tuple(grid[1])
        self.volume_shape = tuple(volume[1])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        through = thickest(spacing.tolist())
        finest = float(np.linalg.norm(volume[0][:3, :3], axis=0).min())
        self._weights, self._steps = [], []
        for axis, mm in enumerate(spacing):
            width = credible(thickness, mm) or mm if axis == through else mm
            steps, weights = _points(width / mm, max(round(width / finest), 1), profile if axis == through else SHAPES[0])
            self._steps.append(steps)
            self._weights.append(torch.from_numpy(weights))
        self._way = np.linalg.inv(volume[0]) @ affine  # from the scan's voxels to the volume's
        self.covered = self._of_points(self._within)[0, 0] > WHOLE

    def measure(self, volume: Tensor) -> Tensor:
        """(H, W, D) -> (h, w, d); 0 where the volume does not reach."""

        def taken(grid: Tensor) -> Tensor:  # half a voxel around the outer centres is as these
            return F.grid_sample(volume[None, None], grid.to(volume), padding_mode="border", align_corners=True)

        return self._of_points(taken)[0, 0] * self.covered.to(volume)

    def adjoint(self, scan: Tensor) -> Tensor:
        """(h, w, d) -> (H, W, D): `<measure(x), y> = <x, adjoint(y)>`."""
        with torch.enable_grad():
            volume = torch.zeros(self.volume_shape, dtype=scan.dtype, device=scan.device, requires_grad=True)
            return torch.autograd.grad(self.measure(volume), volume, scan)[0]

    def _of_points(self, values: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of what a function gives at each voxel's points; slice after slice along the first axis."""
        points = [(np.arange(side)[:, None] + steps).ravel() for side, steps in zip(self.shape, self._steps, strict=True)]
        rows = []
        of_one = len(self._steps[0])
        for first in range(0, len(points[0]), of_one):
            grid = self._grid([points[0][first : first + of_one], *points[1:]])
            rows.append(self._weighted(values(grid)))
        return torch.cat(rows, dim=2)

    def _within(self, grid: Tensor) -> Tensor:
        """1 where a place lies in the volume, whose voxels reach half of one beyond the outer centres."""
        edge = torch.tensor([side / max(side - 1, 1) for side in reversed(self.volume_shape)]) + 1e-6
        return (grid.abs() <= edge).all(dim=-1)[None].double()

    def _grid(self, points: Sequence[npt.NDArray[Any]]) -> Tensor:
        """Where points of the scan's axes lie in the volume, (1, h, w, d, 3), as `grid_sample` counts: the last axis first."""
        place = self._way[:3, 3].reshape(1, 1, 1, 3)
        for axis, along in enumerate(points):
            place = place + (along[:, None] * self._way[:3, axis]).reshape([-1 if axis == a else 1 for a in range(3)] + [3])
        scale = 2 / np.maximum(np.array(self.volume_shape) - 1, 1)
        return torch.from_numpy(np.ascontiguousarray((place * scale - 1)[..., ::-1])[None])

    def _weighted(self, taken: Tensor) -> Tensor:
        """(..., h k_h, w k_w, d k_d) -> (..., h, w, d): the mean of every voxel's points."""
        for axis, weights in zip((-3, -2, -1), self._weights, strict=True):
            taken = (taken.movedim(axis, -1).unflatten(-1, (-1, len(weights))) @ weights.to(taken)).movedim(-1, axis)
        return taken


def _points(share: float, number: int, profile: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Where, in spacings from its centre, and with what weights a voxel's points lie that is a share of a spacing wide."""
    if profile == "gaussian":  # on twice its full width at half maximum lie 98 % of it
        share, number = 2 * share, 2 * number
    steps = ((np.arange(number) + 0.5) / number - 0.5) * share
    within = Slices(1, 1.0, number / (2 if profile == "gaussian" else 1), number / 2, number, profile)
    return steps, within.matrix()[0]


def project_jointly(
    volume: Tensor, scans: Sequence[AcquiredScan], measured: Sequence[Tensor], *, damping: float = 0.0,
    iterations: int = ITERATIONS,
) -> Tensor:  # fmt: skip
    """The volume (H, W, D) nearest to the given one that reproduces all scans (h, w, d) as well as they can be.

    Minimises `sum |A_i x - y_i|^2 + damping |x - volume|^2` by conjugate gradients on the normal equations (CGLS, Bjorck 1996,
    7.4.2). damping: the variance of what is wrong with the scans (noise, motion, interpolation) over that of what is wrong
    with the volume; without any, scans that agree are kept exactly, and what is wrong with them is blown up.
    """
    change = torch.zeros_like(volume)
    rest = [_known(scan, y) - scan.measure(volume) for scan, y in zip(scans, measured, strict=True)]
    limit = ENOUGH**2 * sum(float((y.max() - y.min()) ** 2) * y.numel() for y in measured)
    slope = _adjoint(scans, rest)
    step, size = slope, _square(slope)
    for _ in range(iterations):
        missed = sum(map(_square, rest))
        if missed <= limit or size <= FLAT**2 * missed:
            break
        moved = [scan.measure(step) for scan in scans]
        length = size / (sum(map(_square, moved)) + damping * _square(step))
        change = change + length * step
        rest = [part - length * along for part, along in zip(rest, moved, strict=True)]
        slope = _adjoint(scans, rest) - damping * change
        size, before = _square(slope), size
        step = slope + size / before * step
    return volume + change


def errors(volume: Tensor, scans: Sequence[AcquiredScan], measured: Sequence[Tensor]) -> list[float]:
    """Root mean square of what a volume misses of each scan, as a share of the scan's range."""
    missed = [scan.measure(volume) - _known(scan, y) for scan, y in zip(scans, measured, strict=True)]
    inside = [max(int(scan.covered.sum()), 1) for scan in scans]
    ranges = [float(y.max() - y.min()) or 1.0 for y in measured]
    return [math.sqrt(_square(part) / number) / span for part, number, span in zip(missed, inside, ranges, strict=True)]


def _square(values: Tensor) -> float:
    return float((values**2).sum())


def _known(scan: AcquiredScan, measured: Tensor) -> Tensor:
    return measured * scan.covered.to(measured)


def _adjoint(scans: Sequence[AcquiredScan], parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([scan.adjoint(part) for scan, part in zip(scans, parts, strict=True)]).sum(dim=0)
