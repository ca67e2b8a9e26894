# SPDX-License-Identifier: Apache-2.0
"""How far a mean over few cases can be trusted, and a difference between two systems."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

Numbers = npt.NDArray[np.float64]
RESAMPLES = 10_000  # draws of the bootstrap
FEWEST = 3  # cases; an interval from fewer would say nothing
FEWEST_TO_TEST = 6  # the smallest two-sided p of n differences is 2 / 2^n: 0.0625 for 5, 0.031 for 6


def bootstrap_interval(values: npt.ArrayLike, of: Callable[[Numbers], Numbers] | None = None) -> tuple[float, float]:
    """95 % percentile interval of the mean, from cases drawn again with replacement; the same values give the same one.

    values: (cases,), or (cases, several) when `of` makes one number of several means: (draws, several) -> (draws,).
    """
    array = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    means = array[drawn].mean(axis=1)
    low, high = np.percentile(means if of is None else of(means), [2.5, 97.5])
    return float(low), float(high)


def wilcoxon_p(differences: Numbers) -> float | None:
    """Two-sided p of the signed-rank test; cases without a difference say nothing and are left out (Wilcoxon's way)."""
    if not differences.size:
        return None
    informative = differences[differences != 0]
    return float(wilcoxon(informative).pvalue) if informative.size else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979), in the order given; None stays None and is not counted."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted
