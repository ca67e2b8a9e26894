# SPDX-License-Identifier: Apache-2.0
"""Moving average of the weights."""

from ignite.engine import Engine
from ignite.handlers import EMAHandler
from torch import nn

SHARE = 9  # after t steps the average reaches back over the last t / SHARE


class AveragedWeights(EMAHandler):
    """ignite's moving average, whose decay after t steps is (1 + t) / (10 + t) at most, as TensorFlow's.

    With a fixed decay of 0.998 the average of a training of 300 steps is still more than half of what it began with.
    The step alone decides, so that a resumed training averages as one that never stopped.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, momentum=1.0 - decay)

    def _update_ema_model(self, engine: Engine, name: str) -> None:
        setattr(engine.state, name, max(self.momentum, SHARE / (SHARE + 1 + engine.state.iteration)))
        super()._update_ema_model(engine, name)
