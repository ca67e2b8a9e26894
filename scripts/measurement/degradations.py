# SPDX-License-Identifier: Apache-2.0
"""Degradation operators `A` and the exact projection onto what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadInput
from .slices import Slices

TAPS = 2  # values on either side that a cubic convolution looks at
BACKGROUND, BRIGHTEST = -1.0, 1.0  # normalised intensities of the first, and the most that networks may answer


class Degradation(ABC):
    """A linear operator `A` on volumes with `A = A^2`, which relates a volume to what a scanner measured of it.

    Volumes have three trailing spatial axes and any leading ones: (..., H, W, D).
    """

    factors: tuple[int, int, int]
    smooth: bool  # whether networks see the measurement interpolated; as blocks otherwise
    consistency: bool  # whether results are projected onto the measurement
    positions: str = "coordinates"  # what networks see of a voxel's place: those, or where it lies between "slices"
    periodic: bool = False  # whether the last axis closes in a circle, as the time of a gated loop does

    @abstractmethod
    def measure(self, volume: Tensor) -> Tensor:
        """The measurement on its own, coarser grid: (..., H, W, D) -> (..., H / f_H, W / f_W, D / f_D)."""

    @abstractmethod
    def repeat(self, measurement: Tensor) -> Tensor:
        """A coarse measurement laid out on the fine grid, inverse of `measure` on its range."""

    @abstractmethod
    def interpolate(self, measured: Tensor) -> Tensor:
        """A smooth volume with the same measurement as `measured`, both (B, C, H, W, D) on the fine grid."""

    def __call__(self, volume: Tensor) -> Tensor:
        """`A(volume)`: measured, then laid out on the fine grid again."""
        return self.repeat(self.measure(volume))

    def slices(self, shape: Sequence[int]) -> Sequence[Slices | None]:
        """How each axis of a volume (H, W, D) is sampled, None where it is measured as it is."""
        return [Slices.covering(side // f, f) if f > 1 else None for side, f in zip(shape, self.factors, strict=True)]

    def cells(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Voxels along (H, W, D) that a crop of a volume of a shape keeps together: blocks, and a circle whole."""
        height, width, depth = self.factors
        return height, width, shape[-1] if self.periodic else depth

    def of(self, volume: Tensor) -> Degradation:
        """The operator of a volume: itself, unless each scan has its own (`AsScanned`)."""
        return self

    def on(self, shape: Sequence[int]) -> Degradation:
        """The simulated operator of volumes of a shape (H, W, D), likewise."""
        return self

    @property
    def scans(self) -> Sequence[Degradation]:
        """The scans that together are the measurement, one file each."""
        return (self,)

    def joined(self, measured: Sequence[Tensor]) -> Tensor:
        """The measurement of all `scans`, from those of each laid out on the fine grid; all (..., H, W, D)."""
        return measured[0]

    def plain(self, measured: Tensor) -> Tensor:
        """Volume that tells background and bright end: one without overshoot, alike over every cell of `factors`."""
        return measured

    def around(self, measured: Tensor) -> Tensor:
        """Volume that is right where there is no foreground."""
        return self(measured)

    def foreground(self, measured: Tensor, background: float) -> Tensor:
        """Where there is more than background: nothing that was measured of it lies elsewhere. (..., H, W, D), bool."""
        return self.plain(measured) > background

    def shown(self, measured: Tensor) -> Tensor:
        """The condition as the networks see it, with the measurement `measured`; both (B, C, H, W, D)."""
        return self.interpolate(measured) if self.smooth else measured

    def project(self, volume: Tensor, measured: Tensor) -> Tensor:
        """The nearest volume that reproduces the measurement: `x - A(x) + A(y)`, Eq. 8 of Zhu et al. 2025.

        Without `consistency` the volume as it is.
        """
        return volume + self(measured - volume) if self.consistency else volume

    def project_within(self, volume: Tensor, measured: Tensor, inside: Tensor) -> Tensor:
        """The same, as far as an operator can with background outside (B, 1, H, W, D); all in normalised intensities."""
        return self.project(volume, measured)


class BlockAverage(Degradation):
    """Average over blocks of voxels, then repeat back: `A` of Eq. 8 in Zhu et al. 2025. `A` is its own pseudo-inverse.

    factors: voxels per block along (H, W, D), e.g. (4, 4, 4), or (1, 1, 4) for thick slices.
    smooth: show the measurement to the networks by cubic interpolation with the same block averages: it starts 3 dB
    nearer to the truth than the blocks of the paper do. consistency: project results onto the measurement. positions, periodic:
    see `Degradation`.
    Raises ValueError when a side of the volume is not a multiple of its factor.

    >>> average = BlockAverage((1, 1, 2))
    >>> average(torch.tensor([[[1.0, 3.0]]]))
    tensor([[[2., 2.]]])
    """

    def __init__(
        self, factors: Sequence[int], smooth: bool = True, consistency: bool = True, positions: str = "coordinates", *,
        periodic: bool = False,
    ) -> None:  # fmt: skip
        if len(factors) != 3 or any(int(f) != f or f < 1 for f in factors):
            raise BadInput(f"factors must be three whole numbers of at least 1, not {list(factors)}")
        self.factors = (int(factors[0]), int(factors[1]), int(factors[2]))
        self.smooth, self.consistency, self.positions, self.periodic = smooth, consistency, positions, periodic

    def measure(self, volume: Tensor) -> Tensor:
        height, width, depth = volume.shape[-3:]
        if any(side % factor for side, factor in zip(volume.shape[-3:], self.factors, strict=True)):
            raise ValueError(f"volume {height}x{width}x{depth} is not a multiple of the block {self.factors}")
        f_h, f_w, f_d = self.factors
        blocks = volume.reshape(*volume.shape[:-3], height // f_h, f_h, width // f_w, f_w, depth // f_d, f_d)
        return blocks.mean(dim=(-5, -3, -1))

    def project_within(self, volume: Tensor, measured: Tensor, inside: Tensor) -> Tensor:
        """The nearest volume that reproduces the measurement and is background outside: voxels inside take all that is missing.

        Blocks whose measurement would need intensities of them that there are not have voxels outside that are none.
        """
        coarse, share = self.measure(measured), self.measure(inside.to(volume))
        contradicts = (coarse - BACKGROUND > share * (BRIGHTEST - BACKGROUND)) | (coarse < BACKGROUND)
        inside = inside | (self.repeat(contradicts.to(volume)) > 0)
        volume = volume.where(inside, BACKGROUND)
        if not self.consistency:
            return volume
        missing = (coarse - self.measure(volume)) / self.measure(inside.to(volume)).clamp(min=1e-6)
        return volume + self.repeat(missing) * inside

    def repeat(self, measurement: Tensor) -> Tensor:
        for axis, factor in zip((-3, -2, -1), self.factors, strict=True):
            measurement = measurement.repeat_interleave(factor, dim=axis)
        return measurement

    def interpolate(self, measured: Tensor) -> Tensor:
        """Cubic convolution (Keys 1981) along each axis, then projected: the strongest of the classical floors."""
        coarse = self.measure(measured)
        volume = self.refine(coarse)
        return volume + self.repeat(coarse - self.measure(volume))

    def refine(self, coarse: Tensor) -> Tensor:
        """Cubic convolution alone, onto the fine grid; along a circle what lies beyond an end is what lies before the other."""
        if not self.periodic:
            return cubic(coarse, self.factors)
        count = coarse.shape[-1]
        around = coarse[..., torch.arange(-TAPS, count + TAPS, device=coarse.device) % count]
        return cubic(around, self.factors).narrow(-1, TAPS * self.factors[-1], count * self.factors[-1])


class ThickScans(Degradation):
    """Several scans of one contrast with thick slices in different planes, as one measurement.

    blocks: of each scan, e.g. [[1, 1, 4], [1, 4, 1], [4, 1, 1]] for axial, coronal and sagittal slices. Averages along
    different axes commute, so that one projection after the other lands where all hold: `A = 1 - prod_i (1 - A_i)` is an
    orthogonal projection, and a volume with `A(x) = A(y)` has every scan of y. There is no coarser grid for A; `measure` stays
    on the fine one. smooth, consistency: as for `BlockAverage`. Scans of one contrast must come in the same units; where they
    contradict each other the first is kept exactly.
    Raises BadInput when along an axis one block does not divide the other, for those averages do not commute.
    """

    def __init__(self, blocks: Sequence[Sequence[int]], smooth: bool = True, consistency: bool = True) -> None:
        self._scans = [BlockAverage(block) for block in blocks]
        sides = list(zip(*(scan.factors for scan in self._scans), strict=True))
        if any(max(side) % factor for side in sides for factor in side) or not sides:
            raise BadInput(f"blocks {[list(block) for block in blocks]}: along an axis one must be a multiple of the others")
        self.factors = (max(sides[0]), max(sides[1]), max(sides[2]))
        self.smooth, self.consistency = smooth, consistency
        self._cells = BlockAverage(self.factors)

    @property
    def scans(self) -> Sequence[Degradation]:
        return self._scans

    def plain(self, measured: Tensor) -> Tensor:
        """Averages over cells, which A keeps apart: the joint measurement itself falls below the background around edges."""
        return self._cells(measured)

    def joined(self, measured: Sequence[Tensor]) -> Tensor:
        """The smallest volume with these scans: one projection after the other, the first scan's last."""
        volume = torch.zeros_like(measured[0])
        for scan, blocks in reversed(list(zip(self._scans, measured, strict=True))):
            volume = volume + blocks - scan(volume)
        return volume

    def measure(self, volume: Tensor) -> Tensor:
        return self.joined([scan(volume) for scan in self._scans])

    def repeat(self, measurement: Tensor) -> Tensor:
        return measurement

    def interpolate(self, measured: Tensor) -> Tensor:
        """The mean of what each scan gives by itself, then projected."""
        volume = torch.stack([scan.interpolate(scan(measured)) for scan in self._scans]).mean(dim=0)
        return volume + self(measured - volume)


def cubic(volume: Tensor, factors: Sequence[int]) -> Tensor:
    """Cubic convolution onto a grid `factors` as fine, (..., H, W, D)."""
    for axis, factor in zip((-3, -2, -1), factors, strict=True):
        volume = _cubic(volume, axis, factor)
    return volume


def _cubic(volume: Tensor, axis: int, factor: int) -> Tensor:
    """Refine one axis `factor` times by cubic convolution; voxel edges, not centres, stay where they were."""
    if factor == 1:
        return volume
    lines = volume.movedim(axis, -1)
    flat = lines.reshape(-1, 1, 1, lines.shape[-1])
    fine = F.interpolate(flat, scale_factor=(1.0, float(factor)), mode="bicubic", align_corners=False)
    return fine.reshape(*lines.shape[:-1], -1).movedim(-1, axis)
