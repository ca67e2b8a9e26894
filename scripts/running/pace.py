# SPDX-License-Identifier: Apache-2.0
"""How long the cases to come will take, by those that have ended."""

import time
from collections import deque

# The latest quarter of the time passed, but no less than two minutes and 50 cases. What else a machine does changes while it
# computes thousands: where that doubled the time of a case, the mean over all stayed a quarter off, this one a fifth. A shorter
# one would follow what passes.
SHARE, SHORTEST, FEWEST = 0.25, 120.0, 50


class Pace:
    """The mean time of the latest of so many cases, from when it is made."""

    def __init__(self, cases: int) -> None:
        self.cases, self._start = cases, time.monotonic()
        self._ends = deque([(self._start, 0)])

    def note(self, done: int, *, starting: int = 1) -> None:
        """So many cases are done by now. While the first ones are, something starts: these do not count beside others."""
        now = time.monotonic()
        if done <= starting:
            self._ends.clear()
        self._ends.append((now, done))
        since = now - max(SHORTEST, SHARE * (now - self._start))
        while len(self._ends) > 1 and self._ends[1][0] <= since and self._ends[1][1] <= done - FEWEST:
            self._ends.popleft()

    def left(self, done: float) -> float | None:
        """Seconds until all cases are done, as so many are, of the present one a part; None before anything is."""
        since, before = self._ends[0] if done - self._ends[0][1] >= 1 else (self._start, 0)
        return (time.monotonic() - since) / (done - before) * (self.cases - done) if done else None
