# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from scripts.diffusion import Diffusion
from scripts.training import NoisyBatch, PairedBatch, PatchAdversary

DIFFUSION = Diffusion(sigma_data=0.1, regression_share=1.0)


def draw_batch(sides=(24, 24)):
    samples = {key: torch.rand(2, channels, *sides) for key, channels in (("image", 5), ("label", 1), ("base", 1))}
    return {**samples, "index": torch.arange(2)}


def adversary(**options):
    return PatchAdversary(DIFFUSION, 6, width=4, **options)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_judgement_sees_seventy_voxels_a_side(dims, seed):
    """Without norms, which see everything: the gradient of one judgement reaches exactly the patch."""
    judge = PatchAdversary(DIFFUSION, 1, dims=dims, width=1).discriminator
    for module in judge.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.modules.instancenorm._InstanceNorm):
                setattr(module, name, torch.nn.Identity())
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.abs_()  # so that nothing cancels
    x = torch.rand(1, 1, *[96] * dims, requires_grad=True)
    patches = judge(x)[-1]
    middle = tuple(side // 2 for side in patches.shape[2:])
    patches[(0, 0, *middle)].backward()
    seen = x.grad[0, 0] != 0
    for axis in range(dims):
        others = [other for other in range(dims) if other != axis]
        assert int(seen.amax(dim=others).sum()) == 70


def test_a_batch_pairs_input_and_image_and_shows_no_noise(seed):
    batch = draw_batch()
    image, pair, _, noisy = PairedBatch(DIFFUSION, seed)(batch)
    assert torch.equal(image, batch["image"])
    assert all(torch.equal(pair[key], batch[source]) for key, source in (("x", "image"), ("base", "base"), ("label", "label")))
    assert not noisy["x_t"].any()
    assert not noisy["timesteps"].any()


def test_a_perfect_output_is_the_label(seed):
    batch = draw_batch()
    _, target, _, _ = NoisyBatch(DIFFUSION, seed)(batch)
    torch.testing.assert_close(adversary().image(target, batch["base"]), batch["label"], rtol=0, atol=1e-5)


def test_the_loss_is_that_of_the_paper_and_the_discriminator_learns_from_it(seed):
    batch = draw_batch()
    _, pair, _, _ = PairedBatch(DIFFUSION, seed)(batch)
    loss = adversary(learning_rate=0.0)
    output = torch.randn(2, 1, 24, 24, requires_grad=True)
    total = loss(output, pair)
    with torch.no_grad():
        fake = loss.image(output, pair["base"])
        logits = loss.discriminator(torch.cat([pair["x"], fake], dim=1))[-1]
        expected = F.softplus(-logits).mean() + 100 * F.l1_loss(fake, pair["label"])  # -log D(x, G(x))
        real = loss.discriminator(torch.cat([pair["x"], pair["label"]], dim=1))[-1]
        learned = (F.softplus(logits).mean() + F.softplus(-real).mean()) / 2
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    total.backward()
    assert output.grad.abs().sum() > 0
    bias = loss.discriminator.final_conv.conv.bias
    loss._learn(pair["x"], fake, pair["label"])
    step = torch.autograd.grad(
        (F.softplus(loss.discriminator(torch.cat([pair["x"], fake], dim=1))[-1]).mean()
         + F.softplus(-loss.discriminator(torch.cat([pair["x"], pair["label"]], dim=1))[-1]).mean()) / 2, bias)[0]  # fmt: skip
    torch.testing.assert_close(bias.grad, step, rtol=1e-4, atol=1e-6)
    assert learned > 0


def test_a_discriminator_learns_to_tell_and_goes_on_where_it_stopped(seed, tmp_path):
    batch = draw_batch()
    _, pair, _, _ = PairedBatch(DIFFUSION, seed)(batch)
    output, loss = torch.randn(2, 1, 24, 24), adversary(learning_rate=1e-2)
    first = loss(output, pair)
    for _ in range(10):
        last = loss(output, pair)
    assert last > first  # harder to deceive
    torch.save(loss.state_dict(), tmp_path / "adversary.pt")
    again = adversary(learning_rate=1e-2)
    again.load_state_dict(torch.load(tmp_path / "adversary.pt", weights_only=True))
    for _ in range(2):  # the second needs the optimiser's moments
        assert torch.equal(loss(output, pair), again(output, pair))
