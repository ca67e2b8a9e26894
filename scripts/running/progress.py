# SPDX-License-Identifier: Apache-2.0
"""No silence while volumes are computed: bars on a terminal, elsewhere a line every ten seconds; and how long it will take."""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import in_words, several
from ..logs import draws_bars
from ..networks.engine import in_integers
from .bars import Bars
from .few_lines import FewLines
from .pace import Pace
from .parts import Part

logger = logging.getLogger(__name__)

PERIOD, MOVING = 10.0, 0.5  # seconds between lines, and between looks of a bar
CALIBRATION = 0.5  # seconds of work from which the rest is told
FORESEEN = 0.75  # of the time of a call that is under way; beyond it, what is taken for done grows ever more slowly


class Progress:
    """How far a run over so many cases is, within a `with`."""

    def __init__(self, cases: int) -> None:
        self.cases, self.begun, self.pace = cases, 0, Pace(cases)
        # A process that logs no such lines is somebody's worker.
        drawn = draws_bars() and logger.isEnabledFor(logging.INFO) and _terminal()
        self.bars = Bars(cases, self.pace.left) if drawn else None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.bars is not None:
                self.bars.open()
                stack.callback(self.bars.close)
            stack.enter_context(FewLines(self.cases))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @contextmanager
    def case(self, name: str, shape: Sequence[int], parts: Sequence[Part]) -> Iterator[None]:
        """While the next case, of this name and a network's inputs (B, C, H, W, D) of this shape, is computed."""
        case = Case(self._titled(name), shape, parts)
        over = threading.Event()
        with ExitStack() as stack:
            stack.callback(over.set)
            stack.enter_context(case)
            threading.Thread(target=self._watch, args=(case, over), daemon=True).start()
            yield

    def next(self) -> None:
        """The next case begins, though perhaps nothing is computed of it."""
        self.pace.note(self.begun)
        self.begun += 1
        if self.bars is not None:
            self.bars.begin(self.begun)

    def ended(self, at_once: int) -> None:
        """A case ended that was computed elsewhere, as so many are at once."""
        self.begun += 1
        self.pace.note(self.begun, starting=at_once)
        if self.bars is not None:
            self.bars.begin(self.begun + 1)

    def left(self) -> str:
        """What the latest cases say of the others, as ", 2 cases left: about 30 s"; nothing after the last."""
        rest, seconds = self.cases - self.begun, self.pace.left(self.begun)
        return f", {several(rest, 'case')} left: about {in_words(seconds)}" if rest and seconds is not None else ""

    def _titled(self, name: str) -> str:
        return f"case {name}" if self.cases == 1 else f"case {name} ({self.begun} of {self.cases})"

    def _watch(self, case: "Case", over: threading.Event) -> None:
        while not over.wait(PERIOD if self.bars is None else MOVING):
            share = case.share()
            if self.bars is None:
                logger.info(f"{case.title}: {share:.0%}, {case.state()}")
            else:
                self.bars.show(share, case.title, case.state())


class Case:
    """Counts, within a `with`, what a network has done of one case; of a batch of it, the first forecast is logged.

    What is under way is taken for done as fast as what was done before it, by work; so the fusion, a single call, moves too.
    """

    def __init__(self, title: str, shape: Sequence[int], parts: Sequence[Part]) -> None:
        self.title, self.shape, self.parts = title, shape, parts
        self.total = sum(part.calls * part.pieces * part.work for part in parts)
        self.calls, self.pieces = [0] * len(parts), [0] * len(parts)  # over, and those of the call that is not
        self._began = self._latest = 0.0
        self._under_way, self._counting, self._told = 0.0, False, False

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._hooks: list[Any] = []
        for index, part in enumerate(self.parts):
            self._hooks.append(part.module.register_forward_pre_hook(self._begin(index)))
            self._hooks.append(part.module.register_forward_hook(self._end(index)))
            if part.within is not None:
                self._hooks.append(part.within.register_forward_hook(self._count(index)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def share(self) -> float:
        """Of the work, from 0 to 1."""
        done, spent = self._done(), self._latest - self._began
        if not self.total:
            return 0.0
        if done and spent and self._under_way:
            done += self._under_way * approaching((time.monotonic() - self._latest) * done / spent / self._under_way)
        return min(done / self.total, 1.0)

    def state(self) -> str:
        """Pieces, seconds, and time left."""
        done: dict[str, list[int]] = {}
        for index, part in enumerate(self.parts):
            of_name = done.setdefault(part.name, [0, 0])
            of_name[0] += self._pieces(index)
            of_name[1] += part.calls * part.pieces
        counts = [f"{some} of {several(all_, name)}" for name, (some, all_) in done.items()]
        left = self.left()
        told = [f"{in_words(left)} left"] if left is not None else []
        return ", ".join([*counts, in_words(time.monotonic() - self._start), *told])

    def left(self) -> float | None:
        """Seconds; None while nobody knows."""
        share = self.share()
        return (1 - share) / share * (time.monotonic() - self._began) if share else None

    def _pieces(self, index: int) -> int:
        part = self.parts[index]
        return min(self.calls[index] * part.pieces + min(self.pieces[index], part.pieces), part.calls * part.pieces)

    def _done(self) -> float:
        return sum(self._pieces(index) * part.work for index, part in enumerate(self.parts))

    def _begin(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # More where a circle was opened; less is the comparison of precisions.
            self._counting = all(seen >= side for seen, side in zip(inputs[0].shape[2:], self.shape[2:], strict=True))
            if self._counting:
                self._began = self._began or time.monotonic()
                part = self.parts[index]
                self._under_way = 0.0 if part.within is not None else part.pieces * part.work

        return hook

    def _count(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            if self._counting:
                self.pieces[index] += len(inputs[0])
                self._under_way = len(inputs[0]) * self.parts[index].work
                self._note(inputs[0])

        return hook

    def _end(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            if self._counting:
                self.calls[index] += 1
                self.pieces[index] = 0
                self._under_way = 0.0
                self._note(inputs[0])

        return hook

    def _note(self, seen: Tensor) -> None:
        self._latest = time.monotonic()
        if not self._told and self._latest - self._began >= CALIBRATION:
            self._told = True
            self._forecast(self._numbers(seen.device))

    def _numbers(self, device: torch.device) -> str:
        if any(in_integers(part.module) for part in self.parts):
            return "8-bit integers"
        return "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"

    def _forecast(self, precision: str) -> None:
        whole = time.monotonic() - self._start + (self.left() or 0.0)
        sides = "x".join(str(side) for side in self.shape[2:])
        logger.info(f"{self.title}: {sides} voxels in {precision}, {self._plan()}: about {in_words(whole)}")

    def _plan(self) -> str:
        pieces: dict[str, int] = {}
        for part in self.parts:
            pieces[part.name] = pieces.get(part.name, 0) + part.calls * part.pieces
        return " and ".join(several(count, name) for name, count in pieces.items())


def approaching(passed: float) -> float:
    """How much of a call is taken for done when such a share of its foreseen time has passed: never all, and ever more."""
    return passed if passed < FORESEEN else 1.0 - (1.0 - FORESEEN) * math.exp((FORESEEN - passed) / (1.0 - FORESEEN))


def _terminal() -> bool:
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
