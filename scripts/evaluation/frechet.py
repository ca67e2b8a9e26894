# SPDX-License-Identifier: Apache-2.0
"""Distances between what a method makes and what is true, as sets: FID and KID on features."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .features import Features

Volume = npt.NDArray[np.floating]
Matrix = npt.NDArray[np.float64]
DEGREE = 3  # of the polynomial kernel


def frechet_distance(pred: Matrix, truth: Matrix) -> float | None:
    """FID, Eq. 6 of Heusel et al. 2017, of features (n, K) and (m, K): `|mu_1 - mu_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^1/2)`.

    S are sample covariances (ddof 1). None with fewer than two volumes on either side.

    With S_1 = A^T A and S_2 = B^T B, where A and B are the centred features over sqrt(n - 1), the trace of the root is the
    sum of the singular values of A B^T: (n, m) instead of (K, K), real, and exact when n < K leaves S singular.
    """
    if min(len(pred), len(truth)) < 2:
        return None
    a, b = ((x - x.mean(axis=0)) / (len(x) - 1) ** 0.5 for x in (pred, truth))
    shift = pred.mean(axis=0) - truth.mean(axis=0)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(float(shift @ shift + (a * a).sum() + (b * b).sum() - 2 * root), 0.0)


def kernel_distance(pred: Matrix, truth: Matrix) -> tuple[float | None, float | None]:
    """KID (Binkowski et al. 2018) and its standard error, of features (n, K) of n predictions and of their n truths.

    The kernel is k(x, y) = (<x, y> / K + 1)^3, the estimate Eq. 4 of Gretton et al. 2012, the mean over i != j of
    k(p_i, p_j) + k(t_i, t_j) - k(p_i, t_j) - k(p_j, t_i). A prediction is never compared with its own truth: they depend
    on each other, which would bias the estimate downwards. It is unbiased for every n, and so may be below 0.
    The standard error is the jackknife's over cases: all of them are used once, none of them is drawn repeatedly.
    None from fewer than two cases, the standard error from fewer than three. Raises ValueError for unlike n.
    """
    n, m = len(pred), len(truth)
    if n != m:
        raise ValueError(f"{n} predictions do not pair with {m} truths")
    if n < 2:
        return None, None
    cross = _kernel(pred, truth)
    pairs = _kernel(pred, pred) + _kernel(truth, truth) - cross - cross.T
    np.fill_diagonal(pairs, 0)
    total = pairs.sum()
    value = float(total / (n * (n - 1)))
    if n < 3:
        return value, None
    without = (total - 2 * pairs.sum(axis=1)) / ((n - 1) * (n - 2))  # the estimate when one case is left out
    return value, float(((n - 1) * without.var()) ** 0.5)


def _kernel(x: Matrix, y: Matrix) -> Matrix:
    found: Matrix = (x @ y.T / x.shape[1] + 1) ** DEGREE
    return found


class FeatureDistances:
    """FID and KID of cases that come one by one: of each, the features of prediction and truth are kept, no voxel.

    features: the extractor; None computes nothing.
    """

    def __init__(self, features: Features | None) -> None:
        self.features = features
        self._pred: list[Matrix] = []
        self._truth: list[Matrix] = []

    def add(self, pred: Volume, truth: Volume) -> None:
        """Count a case: volumes (H, W, D) in RAS, scaled to [0, 1]."""
        if self.features is not None:
            found = self.features(pred), self.features(truth)  # both before either is kept
            self._pred.append(found[0])
            self._truth.append(found[1])

    def result(self) -> dict[str, dict[str, Any]]:
        """`fid` {value, n, features} and `kid` {value, standard_error, n, features}; `features` names the extractor."""
        pred, truth = np.array(self._pred), np.array(self._truth)
        kid, error = kernel_distance(pred, truth)
        about = {"n": len(pred), "features": self.features and self.features.name}
        fid = {"value": frechet_distance(pred, truth), **about}
        return {"fid": fid, "kid": {"value": kid, "standard_error": error, **about}}
