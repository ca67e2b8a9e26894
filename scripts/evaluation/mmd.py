# SPDX-License-Identifier: Apache-2.0
"""The paper's distance between two sets of volumes, with its noise told apart from its bias."""

from collections.abc import Sequence

import numpy as np

from .features import Volume


class VoxelMMD:
    """Maximum mean discrepancy with a linear kernel on raw voxels: `|mean_i(truth_i) - mean_i(pred_i)|^2`.

    With the error d_i = pred_i - truth_i of case i of n, S = |sum_i d_i|^2 and Q = sum_i |d_i|^2 (summed over voxels):

        value = S / n^2
        floor = 1/n sum_v var_i(d_iv), ddof 1  = (Q - S / n) / (n (n - 1))
        bias  = value - floor                  = (S - Q) / (n (n - 1)), the mean of <d_i, d_j> over all pairs i != j

    When cases are independent, however their voxels depend on each other, the expectation of the bias is |E d|^2 (what
    the errors of all cases share; it may come out below 0 when that is little), and of the floor what remains of the
    errors' scatter in a mean of n: without bias, voxels * MSE / n. Value and floor fall with 1/n, the bias does not.

    shape: the box (H, W, D) of voxels in which cases are compared, to begin with. A volume of another size has the same centre
    (for an odd difference, half a voxel nearer the beginning); outside a smaller one nothing differs, and for a larger one
    the box grows. All volumes are of one voxel size. Memory does not grow with the cases: 8 bytes a voxel of the box.
    """

    def __init__(self, shape: Sequence[int] = (192, 224, 192)) -> None:
        self.n = 0
        self._shape = tuple(shape)
        self._sum = np.zeros(shape)  # float64: 66 MB, touched only where volumes lie
        self._first: tuple[int, ...] = (0, 0, 0)  # where the box begins, in voxels of the first one
        self._squares = 0.0

    def add(self, pred: Volume, truth: Volume) -> None:
        """Count a case: volumes (H, W, D) in RAS, scaled to [0, 1]. Raises ValueError when their sizes differ."""
        if pred.shape != truth.shape:
            raise ValueError(f"prediction {pred.shape} and truth {truth.shape} differ in size")
        first = [(room - side) // 2 for side, room in zip(truth.shape, self._shape, strict=True)]
        self._make_room(first, truth.shape)
        error = pred.astype(np.float64) - truth
        self._sum[self._place(first, truth.shape)] += error
        self._squares += float(np.vdot(error, error))
        self.n += 1

    def _make_room(self, first: Sequence[int], sides: Sequence[int]) -> None:
        """Let the box hold a volume that begins at `first`."""
        before, had = self._first, self._sum.shape
        begins = tuple(map(min, first, before))
        ends = [max(a + side, b + room) for a, side, b, room in zip(first, sides, before, had, strict=True)]
        shape = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
        if shape != had:
            smaller, self._sum, self._first = self._sum, np.zeros(shape), begins
            self._sum[self._place(before, had)] = smaller

    def _place(self, first: Sequence[int], sides: Sequence[int]) -> tuple[slice, ...]:
        """In the box."""
        starts = [at - begin for at, begin in zip(first, self._first, strict=True)]
        return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))

    def result(self) -> dict[str, float | None]:
        """`n`, `value`, `floor` and `bias`: the value from one case on, its parts from two."""
        n, square = self.n, float(np.vdot(self._sum, self._sum))
        bias = (square - self._squares) / (n * (n - 1)) if n > 1 else None
        value = square / n**2 if n else None
        floor = None if value is None or bias is None else value - bias
        return {"n": n, "value": value, "floor": floor, "bias": bias}
