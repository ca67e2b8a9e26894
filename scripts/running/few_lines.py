# SPDX-License-Identifier: Apache-2.0
"""A log of thousands of cases that somebody can still read."""

import logging
import time
from collections import Counter
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

MANY = 100  # cases, and of more the log is kept short
FIRST = 50  # lines that are told in any case
MOST = 100  # warnings, and as many errors
PERIOD, SHARE = 10.0, 0.02  # seconds between lines, or of the time passed, if that is more: a day has 300 lines
OF_CASES = tuple(f"{__package__}.{name}" for name in ("case_evaluator", "cluster", "progress"))  # they say what is left


class FewLines(logging.Filter):
    """Within its `with`, a run over many cases logs now and then how far it is, and no more warnings or errors than one reads.

    What handlers that come later are told, such as a record's, is not touched.
    """

    def __init__(self, cases: int) -> None:
        super().__init__()
        self.active = cases > MANY
        self._counts: Counter[int] = Counter()  # by level
        self._start = self._latest = time.monotonic()

    def __enter__(self) -> Self:
        self._handlers = logging.getLogger().handlers[:] if self.active else []
        for handler in self._handlers:
            handler.addFilter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handler in self._handlers:
            handler.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is told; asked by every handler, decided once."""
        decided = record.__dict__
        if "told" not in decided:
            self._counts[record.levelno] += 1
            decided["told"] = self._is_told(record)
        return bool(decided["told"])

    def _is_told(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO:
            if self._counts[record.levelno] == MOST + 1:
                logger.info(f"further lines of {record.levelname} are left out; run.json and the ledger say of every case")
            return self._counts[record.levelno] <= MOST
        now = time.monotonic()
        due = record.name in OF_CASES and now - self._latest >= max(PERIOD, SHARE * (now - self._start))
        told = due or record.name == __name__ or self._counts[record.levelno] <= FIRST
        if told:
            self._latest = now
        return told
