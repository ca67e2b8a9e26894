# SPDX-License-Identifier: Apache-2.0
"""What FID and KID compare: one vector of features a volume, from an extractor that names itself."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Volume = npt.NDArray[np.floating]
Vector = npt.NDArray[np.float64]


class Features(Protocol):
    """An extractor: `name` tells whose distances may be compared; a volume (H, W, D) in [0, 1] becomes a vector (K,)."""

    name: str

    def __call__(self, volume: Volume) -> Vector:
        """The features of one volume."""
        ...


class FilterBank:
    """480 statistics of texture that need no download and no training: the default.

    At three scales (the volume, and averaged over 2 and 4 voxels a side): intensity, three first and six second
    differences between neighbouring voxels; of each the mean size and the root mean square in each octant of the volume,
    as log(1 + statistic / 0.01): a response of one percent of the range is felt, the absence of any is 0.

    Differences are chosen because what restoration gets wrong is first of all the energy of fine detail in some
    direction: blur lowers it, noise, blocks and flickering slices raise it. A random network would see the same less
    legibly. No shape of anatomy is recognised, so two volumes with other folds but the same texture are alike here; and
    the distances compare with those of this extractor alone, never with published FIDs.
    """

    name = "filter_bank"
    scales = 3
    threshold = 0.01  # of the truth's range

    def __call__(self, volume: Volume) -> Vector:
        """(H, W, D) in [0, 1], of any size -> (480,)."""
        level = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
        statistics = []
        for scale in range(self.scales):
            if scale:
                level = F.avg_pool3d(level[None], 2, ceil_mode=True)[0]
            statistics += [value for response in _responses(level) for value in _pooled(response)]
        found: Vector = np.log1p(np.array(statistics, dtype=np.float64) / self.threshold)
        return found


def _responses(volume: Tensor) -> list[Tensor]:
    """The volume, its first differences along each axis and their differences: ten of about (H, W, D)."""
    first = [volume.diff(dim=axis) for axis in range(3)]
    return [volume, *first, *(first[a].diff(dim=b) for a in range(3) for b in range(a, 3))]


def _pooled(response: Tensor) -> list[float]:
    """Mean absolute value and root mean square in each octant: 16 numbers, 0 where an octant has no voxel."""
    statistics = []
    for half in response.tensor_split(2, dim=0):
        for quarter in half.tensor_split(2, dim=1):
            for octant in quarter.tensor_split(2, dim=2):
                count = max(octant.numel(), 1)
                flat = octant.flatten()  # contiguous: a norm of a view takes much longer
                statistics += [float(flat.norm(1)) / count, float(flat.norm(2)) / count**0.5]
    return statistics
