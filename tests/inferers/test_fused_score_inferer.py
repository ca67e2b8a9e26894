# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from scripts.diffusion import (
    SAMPLERS,
    Alternating,
    AveragedStates,
    Diffusion,
    NoiseSchedule,
    sample_ddim,
    sample_heun,
    sample_one_step,
)
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer
from scripts.measurement import BlockAverage
from scripts.measurement.intensity import intensity_range
from scripts.networks import ScoreFusion

BLOCKS = [(4, 4, 4), (1, 1, 4)]


class Oracle(nn.Module):
    """Knows the wanted volume and says what a perfect network would."""

    def __init__(self, truth, inputs, diffusion):
        super().__init__()
        self.image = intensity_range(inputs[:, :1]).normalize(truth)
        self.diffusion = diffusion

    def forward(self, x, x_t, timesteps):
        gamma = timesteps.view(-1, 1, 1, 1, 1)
        x_0 = (self.image - x[:, :1]) / 2 if self.diffusion.residual else self.image
        x_0 = x_0 / self.diffusion.sigma_data
        epsilon = (x_t - gamma.sqrt() * x_0) / (1 - gamma).sqrt()
        v = gamma.sqrt() * epsilon - (1 - gamma).sqrt() * x_0
        return {"epsilon": epsilon, "x_0": x_0, "v": v}[self.diffusion.prediction]


class Wave(nn.Module):
    """A fixed answer that depends on state, condition, place and noise level, within a few units; counts its calls."""

    calls = 0

    def forward(self, x, x_t, timesteps):
        self.calls += 1
        return torch.sin(3 * x_t + 2 * x[:, :1] + x[:, -4:-3] + timesteps.view(-1, 1, 1, 1, 1))


def diffusion(prediction="v", residual=True, sigma_data=0.2):
    schedule = NoiseSchedule("linear" if prediction == "epsilon" else "cosine")
    return Diffusion(schedule, prediction, residual=residual, sigma_data=sigma_data)


def span(volume):
    return (volume.max() - volume.min()).item()


@pytest.mark.parametrize("prediction", ["epsilon", "x_0", "v"])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("block", [(4, 4, 4), None])
def test_a_perfect_network_gives_the_truth(prediction, residual, block, draw_head):
    truth = draw_head(20, 24, 20)
    degradation = BlockAverage(block) if block else None
    inputs = degradation(truth) if degradation else truth.roll(1, 1) * (1 + 0.1 * torch.rand(truth.shape))
    process = diffusion(prediction, residual)
    inferer = FusedScoreInferer(process, steps=10, degradation=degradation, precision="float32")
    result = inferer(inputs, Oracle(truth, inputs, process))
    torch.testing.assert_close(result, truth, rtol=0, atol=2e-5)  # a hundred roundings of intensities around 1


@pytest.mark.parametrize("brightest", [1.0, 60.0])
def test_a_vessel_twenty_times_as_bright_is_whole_where_estimates_are_not_cut(brightest, draw_head):
    truth = draw_head(20, 24, 20)
    truth[..., 9, 10, 10] = 20 * truth.max()
    degradation, process = BlockAverage((4, 4, 1)), diffusion()
    inputs = degradation(truth)
    inferer = FusedScoreInferer(process, steps=1, degradation=degradation, precision="float32", brightest=brightest)
    error = (inferer(inputs, Oracle(truth, inputs, process)) - truth).abs().max() / truth.max()
    assert error < 1e-5 if brightest == 60 else error > 0.1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_result_has_the_measurement_of_the_input(name, block, draw_head, awaken):
    degradation = BlockAverage(block)
    measured = 300 * degradation(draw_head(20, 20, 24)) - 7
    network = awaken(ScoreFusion(size="tiny")).eval()
    inferer = FusedScoreInferer(diffusion(), SAMPLERS[name], steps=3, degradation=degradation, precision="float32")
    result = inferer(measured, network)
    assert (result - measured).abs().max() > 0.01 * span(measured)  # the network did add something
    torch.testing.assert_close(degradation(result), measured, rtol=0, atol=1e-5 * span(measured))


def test_without_consistency_the_measurement_is_free(draw_head):
    degradation = BlockAverage((4, 4, 4), consistency=False)
    measured = degradation(draw_head(20, 20, 20))
    inferer = FusedScoreInferer(diffusion(), steps=3, degradation=degradation)
    assert (degradation(inferer(measured, Wave())) - measured).abs().max() > 0.01


@pytest.mark.parametrize("block", [*BLOCKS, None])
@pytest.mark.parametrize("residual", [True, False])
def test_background_stays_background_to_the_bit(block, residual, draw_head):
    degradation = BlockAverage(block) if block else None
    inputs = 300 * (degradation(draw_head(20, 20, 24)) if degradation else draw_head(20, 20, 24))
    inferer = FusedScoreInferer(diffusion(residual=residual), steps=3, degradation=degradation)
    result = inferer(inputs, Wave())
    assert result[inputs == 0].abs().max() == 0


@pytest.mark.parametrize("block", [(4, 4, 4), None])
def test_background_of_a_further_condition_is_background_of_the_result(block, draw_head):
    """Within the blocks that the first condition has at its edge, too, and its measurement is kept all the same."""
    degradation = BlockAverage(block) if block else None
    truth = 300 * draw_head(20, 20, 24)
    inputs = torch.cat([degradation(truth) if degradation else truth + truth.roll(4, dims=2), 5 * truth], dim=1)
    result = FusedScoreInferer(diffusion(), steps=3, degradation=degradation)(inputs, Wave())
    edge = (truth == 0) & (inputs[:, :1] > 0)
    assert edge.any() and result[edge].abs().max() < 1e-4
    if degradation:
        torch.testing.assert_close(degradation(result), inputs[:, :1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("block", [(4, 4, 4), None])
def test_intensity_scale_goes_through(block, rng, draw_head):
    degradation = BlockAverage(block) if block else None
    inputs = degradation(draw_head(20, 20, 20)) if degradation else draw_head(20, 20, 20)
    inferer = FusedScoreInferer(diffusion(), sample_ddim, steps=4, degradation=degradation)
    factor, shift = 10 ** rng.uniform(-3, 4), rng.uniform(-1, 1)
    result = inferer((inputs + shift) * factor, Wave())
    # float32 loses 1e-7 in the shift; four steps of a network of slope 3 make it some hundred times more
    torch.testing.assert_close(result / factor - shift, inferer(inputs, Wave()), rtol=0, atol=2e-4)


def test_a_seed_is_a_result(seed, draw_head):
    inputs, inferer = draw_head(20, 20, 20), FusedScoreInferer(diffusion(), steps=3, seed=seed)
    first = inferer(inputs, Wave())
    torch.randn(5)  # whatever else draws
    assert torch.equal(inferer(inputs, Wave()), first)
    assert torch.equal(FusedScoreInferer(diffusion(), steps=3)(inputs, Wave(), seed=seed), first)
    assert not torch.equal(inferer(inputs, Wave(), seed=seed + 1), first)


def test_cases_draw_their_own_noise_from_one_seed(seed, draw_head):
    inputs, inferer = draw_head(20, 20, 20), FusedScoreInferer(diffusion(), steps=3, seed=seed)
    assert not torch.equal(inferer(inputs, Wave(), case="one"), inferer(inputs, Wave(), case="two"))
    assert torch.equal(inferer(inputs, Wave(), case="one"), inferer(inputs, Wave(), case="one"))


@pytest.mark.parametrize(("sampler", "steps"), [(sample_ddim, 1), (sample_one_step, 20)])
def test_one_step_is_the_same_for_every_seed(sampler, steps, seed, draw_head):
    inputs, inferer = draw_head(20, 20, 20), FusedScoreInferer(diffusion(), sampler, steps=steps)
    assert torch.equal(inferer(inputs, Wave(), seed=1), inferer(inputs, Wave(), seed=2))
    with pytest.raises(BadInput, match=r"3 samples of one step are all the same.*sampler_fast"):
        inferer(inputs, Wave(), samples=3)


def test_little_memory_gives_the_same_volume(seed, draw_head, awaken):
    inputs, network = draw_head(17, 19, 18), awaken(ScoreFusion(size="compact")).eval()
    results = [
        FusedScoreInferer(diffusion(), sample_ddim, steps=2, precision="float32", memory_gb=limit)(inputs, network)
        for limit in (None, 0.0)
    ]
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-3)


def test_several_samples_are_mean_and_standard_deviation_of_single_ones(seed, draw_head):
    inputs = torch.cat([draw_head(17, 18, 19), draw_head(17, 18, 19)])
    inferer = FusedScoreInferer(diffusion(), steps=3, samples=4, seed=seed)
    result = inferer(inputs, Wave())
    single = torch.stack([inferer(inputs, Wave(), seed=seed + i, samples=1)[:, 0] for i in range(4)]).double()
    mean = single.sum(dim=0) / 4
    deviation = ((single - mean).square().sum(dim=0) / 3).sqrt()
    assert deviation.max() > 0.01
    # float32, in a difference of numbers around 1
    torch.testing.assert_close(result[:, :2].double(), torch.stack([mean, deviation], dim=1), rtol=0, atol=1e-5)
    assert torch.equal(result[:, 2:].double(), single.movedim(0, 1))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_nfe_counts_the_calls_of_the_network(name, kind, draw_head):
    network = Wave()
    inferer = FusedScoreInferer(Diffusion(NoiseSchedule(kind, start=0.01)), SAMPLERS[name], steps=20, precision="float32")
    inferer(draw_head(17, 17, 17), network, samples=2)
    assert network.calls == 2 * inferer.nfe


@pytest.mark.parametrize(
    ("sampler", "steps", "nfe"),
    [
        (sample_one_step, 20, 1),
        (sample_ddim, 4, 4),
        (sample_heun, 6, 10),  # two calls a step, but for the first, from pure noise, and the last
        (Alternating(sample_ddim, 2), 50, 25),
        (Alternating(sample_ddim, 2), 3, 2),  # the first plane once more
        (AveragedStates(sample_ddim, 3), 4, 4),
        (AveragedStates(sample_heun, 3), 6, 10),
    ],
)
def test_nfe_is_what_the_plane_that_is_asked_most_is_asked(sampler, steps, nfe):
    state = torch.get_rng_state()
    assert FusedScoreInferer(diffusion(), sampler, steps=steps).nfe == nfe
    assert torch.equal(torch.get_rng_state(), state)  # nobody's random numbers change by counting


def test_half_precision_stays_close_to_float32(draw_head, awaken):
    inputs, network = draw_head(17, 19, 18), awaken(ScoreFusion(size="tiny")).eval()
    exact, half = (
        FusedScoreInferer(diffusion(), sample_ddim, steps=3, precision=precision)(inputs, network)
        for precision in ("float32", "bfloat16")
    )
    change = (exact - inputs).square().mean().sqrt()
    assert not torch.equal(half, exact)
    assert (half - exact).square().mean().sqrt() < 0.08 * change  # three digits, of which some twenty layers lose one


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((1, 1, 16, 20, 20), "16x20x20.*at least 17"),
        ((1, 20, 20, 20), "at least 17|\\(B, C, H, W, D\\)"),
        ((1, 1, 20, 21, 20), r"20x21x20.*not a multiple of the block \(4, 4, 4\)"),
    ],
)
def test_a_volume_that_does_not_fit_is_answered_in_one_line(shape, named):
    inferer = FusedScoreInferer(diffusion(), degradation=BlockAverage((4, 4, 4)))
    with pytest.raises(BadInput, match=named) as raised:
        inferer(torch.rand(shape), Wave())
    assert "\n" not in str(raised.value)
