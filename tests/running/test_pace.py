# SPDX-License-Identifier: Apache-2.0
"""Whether the time left of many cases is true, by a clock that passes as cases say."""

from types import SimpleNamespace

import numpy as np
import pytest

from scripts.running import pace
from scripts.running.bars import Bars
from scripts.running.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told to."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def off(seconds, clock):
    """How far the time left is from what these cases take, as a share of it, after 5 to 95 % of them."""
    shown, shares, count = Pace(len(seconds)), [], len(seconds)
    for done, one in enumerate(seconds, start=1):
        shown.note(done - 1)
        clock.now += one
        if 0.05 * count <= done <= 0.95 * count:
            shares.append(shown.left(done) / seconds[done:].sum() - 1)
    return np.abs(shares)


def test_nothing_is_said_before_anything_is_done(clock):
    shown = Pace(3)
    assert shown.left(0) is None
    clock.now += 5
    assert shown.left(0.5) == pytest.approx(25)


def test_of_uneven_cases_half_of_what_is_said_is_within_a_seventh_whatever_the_first_one_took(clock, rng):
    """Of 200 draws the median was off by 3 %, the worst by 9 %."""
    assert np.median(off(np.concatenate([[60.0], 0.2 * rng.lognormal(0, 0.5, 999)]), clock)) < 0.15


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_what_else_the_machine_does_is_forgotten_when_it_changes(factor, clock, rng):
    """A mean over all cases would be off by 20 % and more in the median: the first fifth took another time."""
    seconds = rng.lognormal(0, 0.3, 2000) * np.where(np.arange(2000) < 400, 1.0, factor)
    shares = off(seconds, clock)
    assert np.median(shares) < 0.1
    assert np.all(shares[-1000:] < 0.2)


def test_the_bar_of_a_folder_says_the_same(clock, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    shown = Pace(10)
    bars = Bars(10, shown.left)
    bars.open()
    for done in range(5):
        shown.note(done)
        clock.now += 60.0 if done == 0 else 10.0
    shown.note(5)
    bars.begin(6)
    assert "5 of 10 cases" in bars.folder.desc and bars.folder.desc.endswith(", 50 s left")
    clock.now += 5.0
    bars.show(0.5, "case f", "")
    assert bars.folder.desc.endswith(", 45 s left")
    bars.close()
