# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.linalg import sqrtm

from scripts.evaluation.frechet import FeatureDistances, frechet_distance, kernel_distance


def closed_form(mean_1, cov_1, mean_2, cov_2):
    """The Frechet distance of two Gaussians, Dowson and Landau 1982."""
    root = sqrtm(cov_1 @ cov_2).real
    return ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1 + cov_2 - 2 * root)


def loop(pred, truth):
    """KID by its sum over all ordered pairs of cases."""
    k = lambda x, y: (x @ y / len(x) + 1) ** 3  # noqa: E731
    n, total = len(pred), 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += k(pred[i], pred[j]) + k(truth[i], truth[j]) - k(pred[i], truth[j]) - k(pred[j], truth[i])
    return total / (n * (n - 1))


@pytest.mark.parametrize(("n", "m"), [(40, 50), (3, 7), (2, 2)])
def test_fid_is_the_distance_of_the_gaussians_with_the_samples_moments(n, m, rng):
    pred, truth = rng.normal(0.3, 2, (n, 6)) @ rng.normal(size=(6, 6)), rng.normal(0, 1, (m, 6))
    moments = [moment for x in (pred, truth) for moment in (x.mean(axis=0), np.cov(x, rowvar=False))]
    assert frechet_distance(pred, truth) == pytest.approx(closed_form(*moments), rel=1e-5)  # sqrtm of a singular product


def test_fid_of_samples_stretched_along_their_axes_has_a_closed_form(rng):
    truth = rng.normal(size=(9, 30))  # fewer cases than features
    assert frechet_distance(truth * 3, truth) == pytest.approx(
        4 * truth.var(axis=0, ddof=1).sum() + 4 * (truth.mean(axis=0) ** 2).sum()
    )


def test_identical_sets_are_no_distance_apart(rng):
    x = rng.normal(5, 1, (8, 100))
    assert frechet_distance(x, x.copy()) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(x, x.copy()) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_kid_equals_the_double_loop_and_its_error_the_jackknife(n, rng):
    pred, truth = rng.normal(0.2, 1, (n, 7)), rng.normal(0, 1, (n, 7))
    value, error = kernel_distance(pred, truth)
    assert value == pytest.approx(loop(pred, truth), rel=1e-9, abs=1e-12)
    if n == 2:
        assert error is None
    else:
        without = [loop(np.delete(pred, i, axis=0), np.delete(truth, i, axis=0)) for i in range(n)]
        assert error == pytest.approx(np.sqrt((n - 1) * np.var(without)), rel=1e-9)


def test_kid_is_unbiased_and_its_error_right_at_few_cases_that_depend_on_their_truths(rng):
    """Predictions are their truths plus noise, drawn from the same distribution: no distance, on average over repeats."""
    repeats, n, k = 400, 6, 5
    truth, other = rng.normal(size=(2, repeats, n, k))
    pred = 0.8 * truth + 0.6 * other
    found = np.array([kernel_distance(*sets) for sets in zip(pred, truth, strict=True)])
    scatter = found[:, 0].std(ddof=1)
    assert found[:, 0].mean() == pytest.approx(0, abs=6 * scatter / repeats**0.5)
    told = np.sqrt((found[:, 1] ** 2).mean())
    assert 0.7 * scatter < told < 2.5 * scatter  # the jackknife errs to the safe side at few cases


def test_too_few_cases_have_no_distance():
    one = np.ones((1, 4))
    assert frechet_distance(one, np.ones((5, 4))) is None
    assert kernel_distance(one, one) == (None, None)
    with pytest.raises(ValueError, match="2 predictions do not pair with 1 truths"):
        kernel_distance(np.ones((2, 4)), one)


def test_cases_that_come_one_by_one_give_the_distances_of_their_features(rng):
    class Moments:
        name = "moments"

        def __call__(self, volume):
            return np.array([volume.mean(), volume.std(), volume.max()])

    distances = FeatureDistances(Moments())
    assert distances.result()["fid"] == {"value": None, "n": 0, "features": "moments"}
    volumes = rng.random((5, 2, 4, 5, 6))
    for pred, truth in volumes:
        distances.add(pred, truth)
    pred, truth = (np.array([Moments()(volume) for volume in volumes[:, side]]) for side in (0, 1))
    kid, error = kernel_distance(pred, truth)
    assert distances.result() == {
        "fid": {"value": frechet_distance(pred, truth), "n": 5, "features": "moments"},
        "kid": {"value": kid, "standard_error": error, "n": 5, "features": "moments"},
    }


def test_without_an_extractor_there_are_no_distances(rng):
    distances = FeatureDistances(None)
    distances.add(*rng.random((2, 4, 5, 6)))
    assert distances.result()["fid"] == {"value": None, "n": 0, "features": None}
    assert distances.result()["kid"]["value"] is None
