# SPDX-License-Identifier: Apache-2.0
"""What `make soak` says of its parts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = """\
good:
\t@echo begun; echo "a|b whole"
bad:
\tenv/bin/python -m pytest tests/absent.py
quiet:
\t@true
"""
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture(params=["", "1"], ids=["alone", "within make"], autouse=True)
def within(request, monkeypatch):
    monkeypatch.setenv("MAKELEVEL", request.param)


def soak(folder, *targets):
    (folder / "Makefile").write_text(MAKEFILE)
    command = [sys.executable, ROOT / "tests" / "soak.py", *targets]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def cells(row):
    """Of a table's row."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_parts_that_pass_are_rows_of_a_table_with_the_last_line_of_each(tmp_path):
    ended = soak(tmp_path, "good", "quiet")
    assert ended.returncode == 0
    *_, title, rule, good, quiet = ended.stdout.splitlines()
    assert {len(cells(line)) for line in (title, rule, good, quiet)} == {3}
    assert cells(good)[1:] == ["a\\|b whole", "0.0 min"] and cells(quiet)[1] == "said nothing"


def test_a_part_that_fails_ends_it_with_1_in_full_and_the_others_are_run(tmp_path):
    ended = soak(tmp_path, "bad", "absent", "good")
    assert ended.returncode == 1
    assert "2 of 3 parts failed" in ended.stdout
    rows = [line for line in ended.stdout.splitlines() if line.startswith("| `")]
    assert rows[0].startswith("| `pytest tests/absent.py` | **failed**: ")
    assert rows[1].startswith("| `make absent` | **failed**: make: *** No rule")
    assert cells(rows[2])[1] == "a\\|b whole"
    assert sorted(re.sub(r"\d+ s", "", line) for line in ended.stderr.splitlines()) == [
        "absent: failed, ",
        "bad: failed, ",
        "good: passed, ",
    ]
