# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from scripts.diffusion import NoiseSchedule
from scripts.errors import BadInput

FLOAT32 = 1e-6  # relative: one rounding of a float64 table


def table_in_float64(kind):
    beta_start, beta_end, times = 1e-4, 0.09, 1000
    if kind == "cosine":
        return np.cos(0.5 * np.pi * np.arange(1, times + 1) / times) ** 2
    power = {"linear": 1, "scaled_linear": 2}[kind]
    betas = np.linspace(beta_start ** (1 / power), beta_end ** (1 / power), times) ** power
    return np.exp(np.log1p(-betas).cumsum())


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_tables_equal_their_formula_in_float64(kind):
    np.testing.assert_allclose(NoiseSchedule(kind).gammas, table_in_float64(kind), rtol=FLOAT32, atol=1e-30)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
def test_half_precision_networks_leave_the_table_alone(change):
    gammas = getattr(NoiseSchedule("linear"), change)().gammas
    assert gammas.dtype == torch.float32
    assert gammas[-1].item() == pytest.approx(6.6e-21, rel=0.01)
    assert torch.equal(gammas, NoiseSchedule("linear").gammas)


def test_cosine_ends_at_exactly_zero():
    assert NoiseSchedule("cosine").gammas[-1] == 0


def test_gamma_at_table_times_is_the_table(rng):
    schedule, place = NoiseSchedule("linear"), torch.as_tensor(rng.integers(1, 1001, 50))
    # time k / 1000 in float32 misses place k by up to 3e-5 entries, and an entry is 9 % below the one before
    torch.testing.assert_close(schedule.at(place / 1000), schedule.gammas[place - 1], rtol=1e-5, atol=0)


def test_only_20_of_50_even_steps_on_the_published_schedule_see_anything():
    gammas = NoiseSchedule("linear").steps(50, skip_noise=False)
    assert (len(gammas), int((gammas > 1e-3).sum())) == (51, 20)


@pytest.mark.parametrize(("kind", "spacing"), [(k, s) for k in ("linear", "cosine") for s in ("time", "log_snr")])
@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_steps_rise_from_noise_to_one(kind, spacing, count):
    schedule = NoiseSchedule(kind, spacing=spacing)
    gammas = schedule.steps(count, skip_noise=False)
    assert gammas.dtype == torch.float32
    assert (len(gammas), gammas[0], gammas[-1]) == (count + 1, schedule.gammas[-1], 1)
    assert (gammas.diff() > 0).all()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_steps_even_in_log_snr_are_even(kind):
    odds = torch.logit(NoiseSchedule(kind, spacing="log_snr").steps(20)[1:-1].double())
    np.testing.assert_allclose(odds.diff(), odds.diff().mean(), rtol=0.02)  # float32 near 1: 1e-7 of 1 - gamma = 2e-6


def test_skipping_noise_leaves_one_level_below_the_first_signal():
    schedule = NoiseSchedule("linear")
    whole, short = schedule.steps(50, skip_noise=False), schedule.steps(50)
    assert torch.equal(short, whole[-len(short) :])
    assert short[0] < 1e-4 <= short[1]


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda: NoiseSchedule("quadratic"), "'quadratic'.*linear, scaled_linear or cosine"),
        (lambda: NoiseSchedule(spacing="karras"), "'karras'.*time or log_snr"),
        (lambda: NoiseSchedule().steps(0), "at least 1 step, not 0"),
    ],
)
def test_an_unknown_schedule_is_answered_by_the_known_ones(ask, named):
    with pytest.raises(ValueError, match=named):
        ask()


@pytest.mark.parametrize("spacing", ["time", "log_snr"])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_sampling_may_start_from_the_noised_condition(kind, spacing, rng):
    start = float(rng.uniform(0.1, 0.8))
    gammas = NoiseSchedule(kind, spacing=spacing, start=start).steps(5)
    assert gammas[0].item() == pytest.approx(start)
    assert gammas[-1] == 1
    assert (gammas.diff() > 0).all()
    assert len(gammas) == 6


def test_a_start_without_noise_is_refused():
    with pytest.raises(BadInput, match="from 0 to below 1, not 1"):
        NoiseSchedule(start=1)
