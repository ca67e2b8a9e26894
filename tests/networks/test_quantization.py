# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from torch import nn

from scripts.errors import BadInput
from scripts.networks import ScoreFusion, load_weights, quantization
from scripts.networks.quantization import IntegerConvolution, attach_ranges, known_ranges, observed, quantized


@pytest.mark.parametrize(("dims", "padding_mode"), [(2, "zeros"), (3, "replicate")])
def test_a_convolution_of_integers_is_the_sum_of_products_of_integers(dims, padding_mode, seed):
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    conv = kind(3, 4, 3, padding=1, padding_mode=padding_mode)
    x, bound = torch.randn(2, 3, *([7] * dims)), 2.0
    given = IntegerConvolution(conv, bound)(x)
    # In NumPy's integers: what is seen in steps of bound / 127, each filter in steps of its largest weight / 64.
    steps = conv.weight.detach().flatten(1).abs().amax(dim=1).numpy() / quantization.LARGEST_WEIGHT
    weights = np.rint(conv.weight.detach().numpy() / steps.reshape(-1, *([1] * (dims + 1)))).astype(np.int64)
    seen = np.clip(np.rint(x.numpy() / (bound / 127)), -128, 127).astype(np.int64)
    mode = {"zeros": "constant", "replicate": "edge"}[padding_mode]
    padded = np.pad(seen, [(0, 0), (0, 0), *([(1, 1)] * dims)], mode=mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, [3] * dims, axis=tuple(range(2, dims + 2)))
    sums = (
        np.einsum("bc...xy,ocxy->bo...", windows, weights)
        if dims == 2
        else np.einsum("bc...xyz,ocxyz->bo...", windows, weights)
    )
    column = (1, -1, *([1] * dims))
    wanted = sums * (steps * bound / 127).reshape(column) + conv.bias.detach().numpy().reshape(column)
    np.testing.assert_allclose(given.detach().numpy(), wanted, atol=1.0e-5)


def test_no_pair_of_products_overflows_16_bits(seed):
    conv = nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        conv.weight.normal_(std=10.0)
    integers = IntegerConvolution(conv, 1.0)
    largest = (conv.weight.detach() / integers.scales[:, None, None, None]).abs().max().item()
    assert 2 * 255 * round(largest) < 2**15  # unsigned inputs times signed weights, as AVX2 adds them


def test_integers_change_a_network_little_within_the_ranges_it_was_observed_in(awaken, seed):
    network = awaken(ScoreFusion(size="tiny")).eval()
    x = torch.rand(1, 5, 20, 20, 20) * 2 - 1
    with torch.no_grad(), observed(network) as ranges:
        wanted = network(x)
    names = {
        name for name, module in network.named_modules() if isinstance(module, quantization.CONVOLUTIONS) and "unet" in name
    }
    assert ranges.keys() == names
    with torch.no_grad():
        given = quantized(network, ranges)(x)
        assert 0 < (given - wanted).norm() / wanted.norm() < 0.4  # random weights: most of what they say is noise
        assert torch.equal(network(x), wanted)  # it is a copy that was changed


def test_ranges_lie_beside_the_weights_they_are_of_and_nowhere_else(tmp_path, awaken, seed):
    network = awaken(ScoreFusion(size="tiny"))
    weights, other = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save(network.state_dict(), weights)
    file = quantization.write_ranges(weights, {"fusion.unet.first": 1.23456})
    assert json.loads(file.read_text())["ranges"] == {"fusion.unet.first": 1.235}
    assert known_ranges(load_weights(ScoreFusion(size="tiny"), weights)) == {"fusion.unet.first": 1.235}
    torch.save(awaken(ScoreFusion(size="tiny")).state_dict(), other)
    assert known_ranges(load_weights(ScoreFusion(size="tiny"), other)) == {}
    file.rename(quantization.ranges_file(other))
    with pytest.raises(BadInput, match=r"ranges of other weights than b\.pt"):
        load_weights(ScoreFusion(size="tiny"), other)


def test_ranges_are_forgotten_when_the_weights_change(awaken, seed):
    network = awaken(ScoreFusion(size="tiny"))
    attach_ranges(network, {"fusion.unet.first": 1.0})
    assert known_ranges(network)
    with torch.no_grad():
        next(network.parameters()).add_(0.1)
    assert known_ranges(network) == {}
