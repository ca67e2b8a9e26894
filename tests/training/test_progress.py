# SPDX-License-Identifier: Apache-2.0
import logging
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from torch.utils.data import DataLoader

from scripts.training import Progress, progress

BATCH, WAIT, STEP = 5, 0.25, 0.75  # samples; seconds that reading a batch takes, and the step with it
SPEED = "1.00 s a step, 5.0 samples/s, data 25.0 %"


class Reader:
    """Twenty samples, and the time that passes while they are read."""

    now = 0.0

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.now += WAIT / BATCH
        return {"image": torch.zeros(1), "index": index}


def images_alone(samples):
    return [torch.stack([sample["image"] for sample in samples])]


@pytest.fixture
def log_of(monkeypatch, caplog):
    """A function that runs two epochs, with something after each of them, and returns the lines of the log."""

    def log_of(collate=None, after=0.0, interval=2):
        reader = Reader()

        def step(engine, batch):
            reader.now += STEP
            return {"loss": torch.tensor(float(engine.state.iteration))}

        def rest():
            reader.now += after

        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: reader.now))
        caplog.set_level(logging.INFO)
        trainer = Engine(step)
        Progress(interval=interval).attach(trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, rest)
        trainer.run(DataLoader(reader, batch_size=BATCH, collate_fn=collate), max_epochs=2)
        return [record.getMessage() for record in caplog.records if record.name == progress.__name__]

    return log_of


@pytest.mark.parametrize("collate", [None, images_alone])
def test_the_log_tells_loss_speed_waiting_and_time_left(collate, log_of):
    assert log_of(collate) == [
        "training: 8 steps",
        f"step 2/8: loss 1.50000, {SPEED}, 0:00:06 left",
        f"step 4/8: loss 3.50000, {SPEED}, 0:00:04 left",
        f"step 6/8: loss 5.50000, {SPEED}, 0:00:02 left",
        f"step 8/8: loss 7.50000, {SPEED}, 0:00:00 left",
    ]


def test_validation_between_epochs_does_not_count(log_of):
    lines = [line for line in log_of(after=1000.0) if "loss" in line]
    assert len(lines) == 4 and all(SPEED in line for line in lines)


def test_between_its_figures_it_is_silent_for_no_longer_than_a_period(log_of, monkeypatch):
    monkeypatch.setattr(progress, "PERIOD", 2.5)
    lines = log_of(interval=100)
    assert lines[:2] == ["training: 8 steps", "step 3/8: 0:00:05 left"]
    assert lines[-1].startswith("step 8/8: loss ")
