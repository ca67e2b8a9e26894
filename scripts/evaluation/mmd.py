# SPDX-License-Identifier: Apache-2.0
"""The paper's distance between two sets of volumes, with its noise told apart from its bias."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.floating]


class VoxelMMD:
    """Maximum mean discrepancy with a linear kernel on raw voxels: `|mean_i(truth_i) - mean_i(pred_i)|^2`.

    With the error d_i = pred_i - truth_i of case i of n, S = |sum_i d_i|^2 and Q = sum_i |d_i|^2 (summed over voxels):

        value = S / n^2
        floor = 1/n sum_v var_i(d_iv), ddof 1  = (Q - S / n) / (n (n - 1))
        bias  = value - floor                  = (S - Q) / (n (n - 1)), the mean of <d_i, d_j> over all pairs i != j

    When cases are independent, however their voxels depend on each other, the expectation of the bias is |E d|^2 (what
    the errors of all cases share; it may come out below 0 when that is little), and of the floor what remains of the
    errors' scatter in a mean of n: without bias, voxels * MSE / n. Value and floor fall with 1/n, the bias does not.

    shape: the box (H, W, D) of voxels in which cases are compared. A volume of another size lies centred in it (for an odd
    difference, one voxel more at the far end); outside a smaller one nothing differs, and what sticks out of the box on
    both sides is not counted. All volumes are of one voxel size. Memory does not grow with the cases: 8 bytes a voxel.
    """

    def __init__(self, shape: Sequence[int] = (192, 224, 192)) -> None:
        self.n = 0
        self._sum = np.zeros(shape)  # float64: 66 MB, touched only where volumes lie
        self._squares = 0.0

    def add(self, pred: Volume, truth: Volume) -> None:
        """Count a case: volumes (H, W, D) in RAS, scaled to [0, 1]. Raises ValueError when their sizes differ."""
        if pred.shape != truth.shape:
            raise ValueError(f"prediction {pred.shape} and truth {truth.shape} differ in size")
        spans = [_centred(side, room) for side, room in zip(truth.shape, self._sum.shape, strict=True)]
        volume, box = zip(*spans, strict=True)
        error = pred[volume].astype(np.float64) - truth[volume]
        self._sum[box] += error
        self._squares += float(np.vdot(error, error))
        self.n += 1

    def result(self) -> dict[str, float | None]:
        """`n`, `value`, `floor` and `bias`: the value from one case on, its parts from two."""
        n, square = self.n, float(np.vdot(self._sum, self._sum))
        bias = (square - self._squares) / (n * (n - 1)) if n > 1 else None
        value = square / n**2 if n else None
        floor = None if value is None or bias is None else value - bias
        return {"n": n, "value": value, "floor": floor, "bias": bias}


def _centred(side: int, room: int) -> tuple[slice, slice]:
    """Where `side` voxels and `room` voxels with one centre overlap, counted in each."""
    shared = min(side, room)
    first, at = (side - shared) // 2, (room - shared) // 2
    return slice(first, first + shared), slice(at, at + shared)
