# SPDX-License-Identifier: Apache-2.0
"""Thousands of cases: a log that can be read, and a time left that is true."""

import logging
import re
from itertools import pairwise
from types import SimpleNamespace

import pytest

from scripts.running import few_lines, pace
from scripts.running.few_lines import FIRST, MOST, FewLines
from scripts.running.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told to."""
    clock = SimpleNamespace(now=100.0)
    for module in (few_lines, pace):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def told(caplog):
    """Lines that a handler of the root was given."""
    caplog.set_level(logging.INFO)
    return caplog


def run(cases, seconds, clock, *, warn=False):
    """What cases log that take so long each."""
    cases_log, other = logging.getLogger("scripts.running.case_evaluator"), logging.getLogger("scripts.inferers.ladder")
    with FewLines(cases):
        for index in range(cases):
            other.info(f"case {index}: memory")
            clock.now += seconds
            if warn:
                other.warning(f"case {index}: doubt")
                cases_log.error(f"case {index}: fault")
            cases_log.info(f"case {index}: done")


def test_of_a_hundred_cases_every_line_is_told(told, clock):
    run(100, 1.0, clock, warn=True)
    assert len(told.messages) == 400


@pytest.mark.parametrize(("cases", "seconds"), [(2000, 0.1), (2000, 60.0), (20000, 30.0)], ids=str)
def test_of_more_a_few_hundred_lines_are_told_the_later_the_rarer(cases, seconds, told, clock):
    run(cases, seconds, clock)
    assert FIRST < len(told.messages) < 400
    last = [int(re.findall(r"\d+", line)[0]) for line in told.messages if line.endswith("done")]
    assert max(after - before for before, after in pairwise(last)) < 0.05 * cases + 10 / seconds + 1
    assert last[-1] > 0.95 * cases
    assert not any(line.endswith("memory") for line in told.messages[FIRST:])


def test_faults_and_doubts_are_told_up_to_a_hundred_each_and_then_said_to_be_more(told, clock):
    run(500, 0.01, clock, warn=True)
    assert sum(line.endswith("doubt") for line in told.messages) == MOST
    assert sum(line.endswith("fault") for line in told.messages) == MOST
    assert [line for line in told.messages if "further lines of" in line] == [
        f"further lines of {level} are left out; run.json and the ledger say of every case" for level in ("WARNING", "ERROR")
    ]


def test_handlers_are_as_they_were_afterwards(told, clock):
    run(500, 0.01, clock)
    before = len(told.messages)
    logging.getLogger("scripts.inferers.ladder").info("told")
    assert len(told.messages) == before + 1


def seconds_left(shown):
    """As it is said."""
    amount, unit = re.search(r"about ([\d.]+) (s|min)$", shown.left()).groups()
    return float(amount) * {"s": 1, "min": 60}[unit]


def test_a_first_case_that_takes_long_does_not_count_for_the_time_left(clock, rng):
    with Progress(200) as shown:
        for seconds in (60.0, *rng.uniform(0.9, 1.1, 9)):
            shown.next()
            clock.now += seconds
    assert re.fullmatch(r", 190 cases left: about [\d.]+ min", shown.left())
    assert seconds_left(shown) == pytest.approx(190, rel=0.15)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_of_a_cluster_the_time_left_counts_from_when_every_worker_had_a_case(workers, clock):
    """They start for 30 s, and then each takes 10 s a case."""
    with Progress(100) as shown:
        clock.now += 30
        for _ in range(5):
            clock.now += 10
            for _ in range(workers):
                shown.ended(workers)
    assert seconds_left(shown) == pytest.approx((100 - 5 * workers) / workers * 10, rel=0.05)
