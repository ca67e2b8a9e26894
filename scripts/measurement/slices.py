# SPDX-License-Identifier: Apache-2.0
"""Slices along one axis: where they lie and what share of each voxel they measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadInput

Matrix = npt.NDArray[np.floating[Any]]

SHAPES = ("box", "gaussian")
KEYS_A = -0.75  # of cubic convolution, as PyTorch's bicubic
SINGULAR = 0.2  # share of the largest singular value below which what overlapping slices say is lost in noise
CREDIBLE = 0.1  # share of their spacing that slices have at least
ALIKE = 1.01  # times another: as coarse as that
FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations


class Slices(NamedTuple):
    """Slices along one axis of a fine grid, whose voxel i covers [i, i + 1]; lengths in voxels, of any real number.

    number: how many; spacing: from centre to centre; thickness: of a box, or full width at half maximum of a Gaussian; first:
    centre of the first; voxels: along the axis; shape: one of `SHAPES`; beyond: how many of the voxels, the last ones, no slice
    measures, for they are not of the result.
    """

    number: int
    spacing: float
    thickness: float
    first: float
    voxels: int
    shape: str = "box"
    beyond: int = 0

    @classmethod
    def covering(cls, number: int, spacing: float, thickness: float | None = None, shape: str = "box") -> Slices:
        """Slices one after the other from the start of the grid on; thickness: by default as the spacing."""
        voxels = math.ceil(number * spacing - 1e-6)
        return cls(number, spacing, spacing if thickness is None else thickness, spacing / 2, voxels, shape)

    @property
    def centres(self) -> Matrix:
        """(number,), in voxels."""
        return self.first + self.spacing * np.arange(self.number)

    @property
    def whole(self) -> int:
        """Voxels of a slice where each is the average of a whole block of its own; 0 where not."""
        block = round(self.spacing)
        exact = max(abs(self.spacing - block), abs(self.thickness - block), abs(self.first - block / 2)) < 1e-6
        return block if self.shape == "box" and exact and self.number * block == self.voxels else 0

    def matrix(self) -> Matrix:
        """(number, voxels): what share of each voxel a slice measures; rows add up to 1. Raises BadInput for empty slices."""
        edges = np.arange(self.voxels - self.beyond + 1)[None] - self.centres[:, None]
        if self.shape == "box":
            below = np.clip(edges, -self.thickness / 2, self.thickness / 2)
        elif self.shape == "gaussian":
            scale = FWHM / (self.thickness * math.sqrt(2))
            below = np.vectorize(math.erf)(edges * scale) / 2
        else:
            raise BadInput(f"slice profile {self.shape}: there is none of this name; choose one of {', '.join(SHAPES)}")
        shares = np.diff(below, axis=1)
        if not self.thickness > 0 or not self.spacing > 0 or (shares.sum(axis=1) <= 0).any():
            raise BadInput(f"slices {self.thickness:g} voxels thick every {self.spacing:g} do not lie on {self.voxels} voxels")
        return np.pad(shares / shares.sum(axis=1, keepdims=True), [(0, 0), (0, self.beyond)])

    def inverse(self) -> Matrix:
        """(voxels, number): the pseudo-inverse of `matrix`, without its small singular values, which would amplify noise."""
        return np.asarray(np.linalg.pinv(self.matrix(), rcond=SINGULAR))

    def rest(self) -> float:
        """The largest share of one slice that projecting by `inverse` leaves in another; 0 but where slices overlap by much."""
        return float(np.abs(self.matrix() @ self.inverse() - np.eye(self.number)).max())

    def cubic(self) -> Matrix:
        """(voxels, number): cubic convolution from the slices' centres (Keys 1981); beyond the ends the last slice repeats."""
        place = (np.arange(self.voxels) + 0.5 - self.first) / self.spacing
        lower = np.floor(place).astype(int)
        weights = np.zeros((self.voxels, self.number))
        for step in (-1, 0, 1, 2):
            index = np.clip(lower + step, 0, self.number - 1)
            np.add.at(weights, (np.arange(self.voxels), index), _keys(np.abs(place - lower - step)))
        return weights

    def nearest(self) -> npt.NDArray[np.intp]:
        """(voxels,): the nearest slice of each voxel."""
        place = (np.arange(self.voxels) + 0.5 - self.first) / self.spacing
        # Half-way the lower one, whatever rounding says.
        return np.clip(np.ceil(place - 0.5 - 1e-9).astype(int), 0, self.number - 1)

    def distances(self) -> Matrix:
        """(voxels,): from each voxel's centre to that of the nearest slice, in voxels."""
        return np.asarray(np.abs(np.arange(self.voxels) + 0.5 - self.centres[self.nearest()]))


def thickest(spacing: Sequence[float]) -> int | None:
    """The axis of slices: the coarsest, unless another is as coarse."""
    *_, second, most = sorted(spacing)
    return [*spacing].index(most) if most > ALIKE * second else None


def credible(thickness: float | None, spacing: float) -> float | None:
    """Thickness of slices as told, in mm; None where nothing is, or next to nothing of their spacing, as in metres."""
    return thickness if thickness and thickness > CREDIBLE * spacing else None


def _keys(distance: Matrix) -> Matrix:
    near = (KEYS_A + 2) * distance**3 - (KEYS_A + 3) * distance**2 + 1
    far = KEYS_A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
