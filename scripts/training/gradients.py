# SPDX-License-Identifier: Apache-2.0
"""Keeps a single bad batch from ruining the weights."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn

from ..errors import BadInput, listed

logger = logging.getLogger(__name__)
MOST = 10  # bad steps in a row: the weights themselves are past help, not the batch


class BoundedGradients:
    """Between the backward pass and the optimiser: clips gradients, and leaves out a step where they are not finite.

    network: what is trained; norm: the largest norm of all its gradients together, infinite for no clipping.
    After `MOST` steps left out in a row it raises BadInput, before a checkpoint can overwrite the last good one.
    """

    def __init__(self, network: nn.Module, norm: float = math.inf) -> None:
        self.network, self.norm, self.bad = network, norm, 0

    def attach(self, engine: Engine) -> None:
        """Look at the gradients of every step."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Bound those there are now."""
        found = nn.utils.clip_grad_norm_(self.network.parameters(), self.norm)
        self.bad = 0 if torch.isfinite(found) else self.bad + 1
        if not self.bad:
            return
        step = f"step {engine.state.iteration}{_cases(engine)}"
        if self.bad == MOST:
            remedy = "start anew with a lower --learning_rate and another --ckpt_dir, or go on with --precision float32"
            raise BadInput(f"{step}: {MOST} steps in a row had gradients that are not finite; {remedy}")
        logger.warning(f"{step}: gradients are not finite, so the step is left out")
        for parameter in self.network.parameters():  # optimisers pass over what has no gradient
            parameter.grad = None


def _cases(engine: Engine) -> str:
    """Those of the batch, as " (of a, b)", by name where the data say it."""
    batch = getattr(engine.state, "batch", None)
    numbers = batch["case"].tolist() if isinstance(batch, Mapping) and "case" in batch else []
    dataset = getattr(getattr(engine.state, "dataloader", None), "dataset", None)
    data = getattr(getattr(dataset, "volumes", None), "data", None)
    names = [Path(str(data[number]["case"])).name if data else str(number) for number in numbers]
    return f" (of {listed(names)})" if names else ""
