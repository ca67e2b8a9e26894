# SPDX-License-Identifier: Apache-2.0
"""No silence while a volume is computed."""

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from ..inferers.precision import CROP
from ..networks.unet import UNet

logger = logging.getLogger(__name__)

PERIOD = 10.0  # seconds


class Heartbeat:
    """Logs every ten seconds, within a `with`, how many slices of planes and how many fusions a network has computed."""

    def __init__(self, case: str, network: nn.Module) -> None:
        self.case, self.network = case, network
        self.slices = self.fusions = 0

    def __enter__(self) -> Self:
        self._over, self._start = threading.Event(), time.monotonic()
        networks = [module for module in self.network.modules() if isinstance(module, UNet)]
        self._hooks = [module.register_forward_hook(self._count) for module in networks]
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for hook in self._hooks:
            hook.remove()

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if max(inputs[0].shape[2:]) <= CROP:  # the comparison of precisions
            return
        if inputs[0].dim() == 4:
            self.slices += len(inputs[0])
        else:
            self.fusions += 1

    def _beat(self) -> None:
        while not self._over.wait(PERIOD):
            done = f"{self.slices} slices of planes, {self.fusions} fusion{'s' * (self.fusions != 1)}"
            logger.info(f"case {self.case}: {time.monotonic() - self._start:.0f} s, {done}")
