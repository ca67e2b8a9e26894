# SPDX-License-Identifier: Apache-2.0
"""`make soak`: targets of the Makefile, two at once, and what came of each as a table for docs/reliability.md.

The last line that a part prints is its outcome. One that fails is shown at length, and the program ends with 1.
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.inferers.devices import device_name

AT_ONCE = 2
SHOWN = 60  # lines of a part that failed
PIPE = "\\|"  # within a table
MAKE = re.compile(r"make(\[\d+\])?: \*\*\*")  # of a part that failed, after what it says itself
PYTHON = re.compile(r"\S*bin/python (-m (?=pytest))?")


class Part(NamedTuple):
    """What came of a target."""

    command: str
    code: int
    lines: list[str]
    seconds: float

    def row(self) -> str:
        said = [line for line in self.lines if not MAKE.match(line)] or self.lines or ["said nothing"]
        cells = [f"`{self.command}`", f"{'**failed**: ' if self.code else ''}{said[-1]}", f"{self.seconds / 60:.1f} min"]
        return f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |"


def run(target):
    """A target, by make in this folder."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # else it says where it is
    asked: dict[str, Any] = {"env": outside, "stdout": subprocess.PIPE, "text": True, "check": False}
    planned = subprocess.run(["make", "--dry-run", target], stderr=subprocess.DEVNULL, **asked).stdout.splitlines()
    start = time.monotonic()
    ended = subprocess.run(["make", "--silent", target], stderr=subprocess.STDOUT, errors="replace", **asked)
    lines = [line for line in ended.stdout.splitlines() if line.strip()]
    command = re.sub(PYTHON, lambda match: "" if match[1] else "python ", planned[-1]) if planned else f"make {target}"
    part = Part(command, ended.returncode, lines, time.monotonic() - start)
    # In one piece: print writes the end of a line by itself, and another thread between.
    sys.stderr.write(f"{target}: {'failed' if part.code else 'passed'}, {part.seconds:.0f} s\n")
    return part


def main(targets):
    start = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        parts = list(threads.map(run, targets))
    failed = [part for part in parts if part.code]
    for part in failed:
        print(f"\n{part.command}", *part.lines[-SHOWN:], sep="\n  ")
    machine = device_name(torch.device("cpu"))
    print(f"\n{machine}, {date.today()}: {(time.monotonic() - start) / 60:.0f} min, {AT_ONCE} parts at once.\n")
    print("| command | outcome | by the clock |", "|---|---|---|", *(part.row() for part in parts), sep="\n")
    if failed:
        print(f"\n{len(failed)} of {len(parts)} parts failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
