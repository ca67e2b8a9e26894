# SPDX-License-Identifier: Apache-2.0
"""Writes a case while the next one is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import Self

Task = Callable[[], object]


class WriteBehind:
    """Within its `with`, a thread does what `hand_on` is given, in that order; outside, it is done at once.

    fail: called by the thread with a case and the error that a task of it raised; what else was to be done of that case is
    left out. While a case is done no other waits: who hands on a third is held up until the first is over.
    """

    def __init__(self, fail: Callable[[str, Exception], None]) -> None:
        self.fail = fail
        self.failed: set[str] = set()
        self.pending: list[tuple[str, Future[None]]] = []

    def __enter__(self) -> Self:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self.token = _ACTIVE.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """What is being written is finished; after an error, or when the process is told to end, nothing is begun any more."""
        _ACTIVE.reset(self.token)
        self.thread.shutdown(cancel_futures=error is not None)

    def add(self, case: str, task: Task) -> None:
        """Do a task of a case after those that were added before."""
        self.settle(but=case)
        self.pending.append((case, self.thread.submit(self._do, case, task)))

    def settle(self, but: str | None = None) -> None:
        """Wait for all cases but one."""
        for case, future in self.pending:
            if case != but:
                future.result()
        self.pending = [(case, future) for case, future in self.pending if not future.done()]

    def _do(self, case: str, task: Task) -> None:
        if case in self.failed:
            return
        try:
            task()
        except Exception as error:
            self.failed.add(case)
            self.fail(case, error)


_ACTIVE: ContextVar[WriteBehind | None] = ContextVar("write_behind", default=None)


def hand_on(case: str, task: Task) -> None:
    """Do a task of a case: behind, within a `WriteBehind`, else now."""
    if (behind := _ACTIVE.get()) is None:
        task()
    else:
        behind.add(case, task)
