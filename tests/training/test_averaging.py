# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from ignite.engine import Engine
from torch import nn

from scripts.training import AveragedWeights


def averaged(steps, decay):
    """Weights 1, 2, ... after each step, from 0, and what the handler makes of them."""
    network = nn.Linear(1, 1, bias=False).requires_grad_(False)
    network.weight.fill_(0.0)
    engine = Engine(lambda engine, batch: network.weight.add_(1.0) and None)
    handler = AveragedWeights(network, decay)
    handler.attach(engine)
    engine.run(range(steps))
    return float(handler.ema_model.weight)


@pytest.mark.parametrize(("steps", "decay"), [(1, 0.998), (40, 0.998), (300, 0.998), (60, 0.5)])
def test_the_decay_grows_with_the_steps_up_to_its_limit(steps, decay):
    expected = 0.0
    for step in range(1, steps + 1):
        now = min(decay, (1 + step) / (10 + step))
        expected = now * expected + (1 - now) * step
    assert averaged(steps, decay) == pytest.approx(expected, rel=1e-4)


def test_a_short_training_leaves_its_beginning_behind():
    network = nn.Linear(1, 1, bias=False).requires_grad_(False)
    network.weight.fill_(100.0)
    handler, engine = AveragedWeights(network, 0.998), Engine(lambda engine, batch: None)
    handler.attach(engine)
    network.weight.fill_(0.0)
    engine.run(torch.zeros(300))
    assert float(handler.ema_model.weight) < 1e-6
