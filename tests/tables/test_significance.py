# SPDX-License-Identifier: Apache-2.0
import itertools
import math

import numpy as np
import pytest
from scipy.stats import rankdata

from scripts.tables.significance import bootstrap_interval, holm, wilcoxon_p


def test_the_interval_cuts_two_and_a_half_percent_off_each_end_of_all_resamples(rng):
    values = rng.normal(30, 2, 6)
    low, high = bootstrap_interval(values)
    means = values[np.indices((6,) * 6).reshape(6, -1)].mean(axis=0)
    slack = 5 * math.sqrt(0.025 * 0.975 / 10_000)  # of a proportion among 10 000 draws
    assert (means < low - 1e-9).mean() - slack < 0.025 < (means <= low + 1e-9).mean() + slack
    assert (means > high + 1e-9).mean() - slack < 0.025 < (means >= high - 1e-9).mean() + slack


def test_the_interval_covers_the_true_mean_nineteen_times_in_twenty(rng):
    intervals = [bootstrap_interval(rng.normal(30, 2, 20)) for _ in range(200)]
    covered = np.mean([low <= 30 <= high for low, high in intervals])
    assert 0.85 < covered < 0.99  # 0.925 expected of percentiles at n = 20; 4 standard deviations of 200 trials


def test_the_same_cases_give_the_same_interval(rng):
    values = list(rng.normal(30, 2, 9))
    assert bootstrap_interval(values) == bootstrap_interval(values)


@pytest.mark.parametrize("n", [4, 6, 9])
def test_the_paired_test_agrees_with_all_ways_to_flip_the_signs(n, rng):
    differences = rng.normal(0.5, 1, n)
    ranks = rankdata(abs(differences))
    sums = np.array([ranks[np.array(flip)].sum() for flip in itertools.product([False, True], repeat=n)])
    seen = ranks[differences > 0].sum()
    assert wilcoxon_p(differences) == pytest.approx(min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean())))


def test_systems_that_never_differ_are_not_told_apart():
    assert wilcoxon_p(np.zeros(8)) == 1.0


def test_holm_agrees_with_p_adjust_of_r():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
