# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from scripts.diffusion import Diffusion, NoiseSchedule

PREDICTIONS = ["epsilon", "x_0", "v"]


def draw_state(rng, prediction, **options):
    """A diffusion, x_0, epsilon and gamma away from the ends, in float64 so that only formulas can differ."""
    diffusion = Diffusion(NoiseSchedule("linear"), prediction, **options)
    x_0, epsilon = (torch.randn(3, 1, 4, 5, 6, dtype=torch.float64) for _ in range(2))
    return diffusion, x_0, epsilon, torch.as_tensor(rng.uniform(0.05, 0.95, 3))


def test_noisy_states_follow_equation_1(rng):
    diffusion, x_0, epsilon, gamma = draw_state(rng, "epsilon")
    g = gamma.numpy().reshape(3, 1, 1, 1, 1)
    expected = np.sqrt(g) * x_0.numpy() + np.sqrt(1 - g) * epsilon.numpy()
    np.testing.assert_allclose(diffusion.noised(x_0, epsilon, gamma), expected, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_output_leads_back_to_x_0(prediction, rng):
    diffusion, x_0, epsilon, gamma = draw_state(rng, prediction)
    x_t = diffusion.noised(x_0, epsilon, gamma)
    torch.testing.assert_close(diffusion.x_0(diffusion.target(x_0, epsilon, gamma), x_t, gamma), x_0, rtol=0, atol=1e-12)


def test_v_is_the_velocity_on_the_circle(rng):
    diffusion, x_0, epsilon, gamma = draw_state(rng, "v")
    angle = torch.arccos(gamma.sqrt())

    def state(turn):
        return (angle + turn).cos().view(3, 1, 1, 1, 1) * x_0 + (angle + turn).sin().view(3, 1, 1, 1, 1) * epsilon

    velocity = (state(1e-5) - state(-1e-5)) / 2e-5  # central difference: error 1e-10
    torch.testing.assert_close(diffusion.target(x_0, epsilon, gamma), velocity, rtol=0, atol=1e-8)


@pytest.mark.parametrize("residual", [True, False])
def test_decoding_undoes_encoding(residual, rng):
    sigma = rng.uniform(0.02, 1.0)
    diffusion, image, base, _ = draw_state(rng, "v", residual=residual, sigma_data=sigma)
    x_0 = diffusion.encode(image, base)
    expected = ((image - base) / 2 if residual else image) / sigma
    torch.testing.assert_close(x_0, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(diffusion.decode(x_0, base), image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_drawn_noise_levels_are_uniform_in_time_but_for_the_regression_share(share, rng):
    diffusion = Diffusion(NoiseSchedule("cosine"), "v", regression_share=share)
    gamma = diffusion.draw_gamma(torch.from_numpy(rng.random(20_000)).float()).double().numpy()
    regression = gamma == 0
    assert regression.mean() == pytest.approx(share, abs=5 * (0.25 / 20_000) ** 0.5)  # five standard deviations
    time = np.sort(np.arccos(np.sqrt(gamma[~regression])) * 2 / np.pi)
    # Kolmogorov-Smirnov distance: beyond 2.5 / sqrt(n) once in 100 000 runs
    assert np.abs(time - np.linspace(0, 1, len(time))).max() < 2.5 / len(time) ** 0.5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"prediction": "score"}, "'score'.*epsilon, x_0 or v"),
        ({"prediction": "epsilon"}, "nothing at gamma = 0"),
        ({"prediction": "epsilon", "schedule": NoiseSchedule("linear"), "regression_share": 0.1}, "nothing at gamma = 0"),
    ],
)
def test_a_process_without_an_answer_is_refused(options, named):
    with pytest.raises(ValueError, match=named):
        Diffusion(**options)


def test_pure_noise_is_shown_to_networks_as_nothing(rng):
    diffusion, x_0, epsilon, gamma = draw_state(rng, "v")
    gamma[1] = 0.0
    x_t = diffusion.noised(x_0, epsilon, gamma)
    shown = diffusion.shown(x_t, gamma)
    assert not shown[1].any()
    assert torch.equal(shown[[0, 2]], x_t[[0, 2]])
