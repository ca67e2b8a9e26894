# SPDX-License-Identifier: Apache-2.0
"""How far a training is and how long it will take."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.transforms.utils import rescale_array
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..errors import several
from ..inferers.devices import device_name
from ..measurement.planes import PLANES

logger = logging.getLogger(__name__)
PERIOD = 10.0  # seconds


def loss_of(output: Mapping[str, Tensor]) -> Tensor:
    """Of an engine's output, for handlers of configs."""
    return output["loss"]


class Progress:
    """Logs what begins, then mean loss, speed and time left every `interval` steps, and between them no less than every 10 s
    how far it is.

    Samples are those of this process. A large share of the time spent waiting for data asks for workers (`num_workers`).
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._forget()

    def attach(self, engine: Engine) -> None:
        """Follow an engine whose output holds `loss`."""
        engine.add_event_handler(Events.STARTED, self._announce)
        engine.add_event_handler(Events.STARTED | Events.EPOCH_STARTED, self._forget)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._receive)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _announce(self, engine: Engine) -> None:
        self._said = time.monotonic()
        if (steps := _total(engine) - engine.state.iteration) == 0:  # the checkpoint says it
            return
        where = f" on {device_name(device)}" if (device := getattr(engine.state, "device", None)) is not None else ""
        logger.info(f"training: {several(steps, 'step')}{where}")

    def _forget(self) -> None:
        self._losses: list[float] = []
        self._since, self._waited, self._samples = time.monotonic(), 0.0, 0

    def _ask(self) -> None:
        self._asked = time.monotonic()

    def _receive(self, engine: Engine) -> None:
        self._waited += time.monotonic() - self._asked
        batch: Any = engine.state.batch
        self._samples += len(batch["image"] if isinstance(batch, Mapping) else batch[0])

    def __call__(self, engine: Engine) -> None:
        """Note the step."""
        self._losses.append(engine.state.output["loss"].item())  # type: ignore[index]
        total, done = _total(engine), engine.state.iteration
        spent, steps = (now := time.monotonic()) - self._since, len(self._losses)
        loss, seconds = sum(self._losses) / steps, spent / steps
        if done % self.interval and done != total:
            if now - self._said >= PERIOD:
                self._said = now
                logger.info(f"step {done}/{total}: {timedelta(seconds=round(seconds * (total - done)))} left")
            return
        self._said = now
        left = timedelta(seconds=round(seconds * (total - done)))
        speed = f"{seconds:.2f} s a step, {self._samples / spent:.1f} samples/s, data {100 * self._waited / spent:.1f} %"
        logger.info(f"step {done}/{total}: loss {loss:.5f}, {speed}, {left} left")
        self._forget()


def _total(engine: Engine) -> int:
    return (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)


class SampleImages:
    """Writes each validation case's middle slices to TensorBoard: input, result and truth side by side, plane by plane."""

    def __init__(self, log_dir: str) -> None:
        self.writer = SummaryWriter(log_dir)

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose output holds `image`, `pred` and `label`, decollated."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write the pictures of one case."""
        for output in engine.state.output:
            for plane, axis in PLANES.items():
                row = torch.cat([_middle(output[key], axis) for key in ("image", "pred", "label")], dim=1)
                tag = f"{plane}/{engine.state.iteration}"
                self.writer.add_image(tag, row, engine.state.epoch, dataformats="HW")
        self.writer.flush()


def _middle(volume: Tensor, axis: int) -> Any:
    """The middle slice of the first channel, upright, in [0, 1]."""
    return rescale_array(volume[0].select(axis, volume.shape[axis + 1] // 2).T.flip(0).float().cpu())
