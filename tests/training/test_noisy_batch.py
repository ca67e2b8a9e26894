# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from scripts.diffusion import Diffusion, NoiseSchedule
from scripts.training import NoiseLoss, NoisyBatch

SHAPE = (1, 5, 6, 7)


def draw_batch(*indices):
    """Made-up samples with these indices, as a data loader collates them; a sample depends on its index alone."""
    samples = []
    for index in indices:
        generator = torch.Generator().manual_seed(index)
        samples.append({key: torch.randn(SHAPE, generator=generator) for key in ("image", "label", "base")})
    return torch.utils.data.default_collate([{**s, "index": i} for s, i in zip(samples, indices, strict=True)])


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 1.0), (5.0, 150.0)])
def test_loss_is_its_formula_in_float64(l1, l2, rng):
    prediction, target = rng.standard_normal((2, 3, 1, 4, 5, 6))
    error = prediction - target
    expected = l1 * np.abs(error).mean() + l2 * (error**2).mean()
    loss = NoiseLoss(l1, l2)(torch.from_numpy(prediction).float(), torch.from_numpy(target).float())
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # float32


def test_planes_beside_the_fusion_count_by_their_share(rng):
    prediction, target = rng.standard_normal((2, 3, 4, 5, 6)), rng.standard_normal((2, 1, 4, 5, 6))
    error = (prediction - target) ** 2
    loss = NoiseLoss(planes=0.25)(torch.from_numpy(prediction).float(), torch.from_numpy(target).float())
    assert loss.item() == pytest.approx(error[:, :1].mean() + 0.25 * error[:, 1:].mean(), rel=1e-5)  # float32


def test_noisy_states_follow_equation_1(seed):
    batch = draw_batch(3, 8, 1000)
    diffusion = Diffusion(NoiseSchedule("linear"), "epsilon", sigma_data=0.3)
    image, epsilon, _, noisy = NoisyBatch(diffusion, seed)(batch)
    assert torch.equal(image, batch["image"])
    x_0 = ((batch["label"] - batch["base"]) / 2 / 0.3).double()
    gamma = noisy["timesteps"].double().view(3, 1, 1, 1, 1)
    expected = gamma.sqrt() * x_0 + (1 - gamma).sqrt() * epsilon.double()
    torch.testing.assert_close(noisy["x_t"].double(), expected, rtol=0, atol=1e-5)  # float32 of numbers up to 10


def test_noise_belongs_to_the_index_whatever_the_batch(seed, rng):
    noisy_batch, indices = NoisyBatch(Diffusion(), seed), rng.permutation(50)[:6].tolist()

    def parts(*order):
        _, target, _, noisy = noisy_batch(draw_batch(*order))
        return {index: (target[i], noisy["x_t"][i], noisy["timesteps"][i]) for i, index in enumerate(order)}

    together = parts(*indices)
    for index in indices:
        assert all(torch.equal(a, b) for a, b in zip(parts(index)[index], together[index], strict=True))
    assert len({float(part[1].sum()) for part in together.values()}) == 6


def test_noise_is_standard_normal_and_new_for_every_sample_and_seed(seed):
    diffusion = Diffusion(NoiseSchedule("linear"), "epsilon")
    noise = torch.cat([NoisyBatch(diffusion, seed + i)(draw_batch(*range(40)))[1].flatten(1) for i in range(2)]).double()
    count = noise.numel()
    assert noise.mean().item() == pytest.approx(0, abs=5 / count**0.5)  # five standard errors, here and below
    assert noise.std().item() == pytest.approx(1, abs=5 / (2 * count) ** 0.5)
    correlations = torch.corrcoef(noise)[~torch.eye(80, dtype=torch.bool)]
    assert correlations.abs().max() < 6 / noise.shape[1] ** 0.5  # six, as it is the largest of 3160


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_regression_share_is_the_share_of_samples_at_pure_noise(share, seed):
    nothing = torch.zeros(2000, 1, 1, 1, 1)
    batch = {"image": nothing, "base": nothing, "label": nothing + 1, "index": torch.arange(2000)}  # x_0 is nowhere 0
    noisy = NoisyBatch(Diffusion(regression_share=share), seed)(batch)[3]
    gamma = noisy["timesteps"]
    assert torch.equal(noisy["x_t"].flatten() == 0, gamma == 0)  # there the noise is not shown
    error = (share * (1 - share) / 2000) ** 0.5
    assert (gamma == 0).double().mean().item() == pytest.approx(share, abs=5 * error)
