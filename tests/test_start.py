# SPDX-License-Identifier: Apache-2.0
"""What a process does before and after what it was started for."""

import gc
import subprocess
import sys

import pytest

from scripts import start

ASKED = """
import gc, sys
from scripts import start
start.start(alone={alone})
print(gc.isenabled())
start.run("gc", "isenabled", None, {{}})
print(gc.isenabled(), gc.get_freeze_count() > 1000)
"""


@pytest.mark.parametrize(("alone", "said"), [(True, ["False", "True True"]), (False, ["True", "True False"])])
def test_cycles_are_looked_for_again_once_all_is_imported(alone, said):
    done = subprocess.run([sys.executable, "-c", ASKED.format(alone=alone)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == said


def test_what_is_called_runs_with_the_collector_at_work(monkeypatch):
    seen = []
    monkeypatch.setattr(
        sys.modules[__name__], "called", lambda **options: seen.append((gc.isenabled(), options)), raising=False
    )
    start.run(__name__, "called", None, {"steps": 3})
    assert seen == [(True, {"steps": 3})]
