# SPDX-License-Identifier: Apache-2.0
import logging
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from scripts.errors import BadInput
from scripts.training import BoundedGradients
from scripts.training.gradients import MOST


def train(batches, norm=float("inf")):
    """A weight of 1 that is trained by its product with each batch; what it was after every step."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    seen = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=[(value, value) for value in batches], network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.5), loss_function=lambda output, target: output.sum(),
        train_handlers=[BoundedGradients(network, norm)], decollate=False,
    )  # fmt: skip
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(network.weight.item()))
    trainer.run()
    return seen


def numbers(*values):
    return [torch.tensor([[value]]) for value in values]


def test_a_step_with_gradients_that_are_not_finite_is_left_out_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        seen = train(numbers(1.0, float("nan"), float("inf"), 1.0))
    assert seen == [0.5, 0.5, 0.5, 0.0]
    assert [record.message[:7] for record in caplog.records if "left out" in record.message] == ["step 2:", "step 3:"]


def test_gradients_are_clipped_to_the_norm_and_small_ones_left_alone():
    assert train(numbers(8.0, 0.5), norm=2.0) == pytest.approx([0.0, -0.25], abs=1e-6)


def test_many_bad_steps_in_a_row_end_the_training_in_one_line():
    engine = SimpleNamespace(state=SimpleNamespace(iteration=7))
    network = torch.nn.Linear(1, 1)
    bounded = BoundedGradients(network)
    for count in range(MOST):
        (network(torch.ones(1, 1)) * float("nan")).sum().backward()
        if count < MOST - 1:
            bounded(engine)
            continue
        with pytest.raises(BadInput, match=r"step 7: 10 steps in a row .* not finite; start anew with a lower --learning_rate"):
            bounded(engine)


def test_the_cases_of_a_bad_step_are_named(caplog):
    network = torch.nn.Linear(1, 1)
    (network(torch.ones(1, 1)) * float("nan")).sum().backward()
    volumes = SimpleNamespace(data=[{"case": "a"}, {"case": "/data/b.nii.gz"}])
    loader = SimpleNamespace(dataset=SimpleNamespace(volumes=volumes))
    state = SimpleNamespace(iteration=7, batch={"case": torch.tensor([1, 0])}, dataloader=loader)
    with caplog.at_level(logging.WARNING):
        BoundedGradients(network)(SimpleNamespace(state=state))
    assert caplog.messages == ["step 7 (of b.nii.gz, a): gradients are not finite, so the step is left out"]
