# SPDX-License-Identifier: Apache-2.0
"""Bars on a terminal."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..errors import in_words

FORMAT = "{percentage:3.0f}%|{bar:20}| {desc}"


class Bars:
    """One bar for the case that is computed, and above it one for all, where there are several; log lines go above both.

    left: of so many cases done, the seconds that the others will take, or None.
    """

    def __init__(self, cases: int, left: Callable[[float], float | None]) -> None:
        self.cases, self._left = cases, left

    def open(self) -> None:
        """Draw them."""
        from tqdm.contrib.logging import logging_redirect_tqdm  # here: only a terminal asks for it

        self._stack = ExitStack()
        self._stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
        self.folder = self._bar(self.cases) if self.cases > 1 else None
        self.case = self._bar(1)
        self._done = 0

    def close(self) -> None:
        """Take them away."""
        self._stack.close()

    def begin(self, number: int) -> None:
        """The case of this number is the next."""
        self._done = number - 1
        self.show(0.0, "", "")

    def show(self, share: float, title: str, state: str) -> None:
        """How much of the case is done, and what else is known."""
        self._set(self.case, share, f"{title}: {state}" if title else "")
        if self.folder is not None:
            passed = self.folder.format_dict["elapsed"]
            done = self._done + share
            seconds = self._left(done)
            left = f", {in_words(seconds)} left" if seconds is not None else ""
            self._set(self.folder, done, f"{self._done} of {self.cases} cases, {in_words(passed)}{left}")

    def _bar(self, total: int) -> Any:
        from tqdm import tqdm

        return self._stack.enter_context(tqdm(total=total, bar_format=FORMAT, leave=False, dynamic_ncols=True))

    @staticmethod
    def _set(bar: Any, done: float, text: str) -> None:
        bar.n = done
        bar.set_description_str(text)
