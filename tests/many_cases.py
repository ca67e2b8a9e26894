# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402
"""A folder of thousands of small cases in one run: whether memory stays, the log can be read, and the time left is true.

`python tests/many_cases.py 2000`, of which every hundredth cannot be read, ends with 1 where one of them is not so.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import deque
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.networks import ScoreFusion

GROWTH, LINES, OFF = 0.05, 400, 0.2  # at most: of memory between a tenth of the cases and the end, of a log, of the time left
BAD = 100  # every so many cases one that cannot be read
LEFT = re.compile(r"^(\S+ \S+),\d+ INFO .* left: about ([\d.]+) (s|min|h)$")
SECONDS = {"s": 1, "min": 60, "h": 3600}


def write_cases(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Of 5 to 7 voxels a side, in any order."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"case{number:05}_t1.nii.gz"
        if number % BAD == BAD - 1:
            path.write_bytes(b"nothing")
            continue
        voxels = np.pad(rng.uniform(300, 900, rng.integers(3, 6, 3)), 1).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), path)


def watched(folder: Path, weights: Path, count: int, more: list[str]) -> tuple[int, dict[int, tuple[float, float]], list[str]]:
    """Exit code of a run, its memory in MB and the time when a tenth, half and all of the cases had ended, and its log.

    Memory is the median of the last five seconds: at a moment a case more or less is held.
    """
    tiny = ["--set", "size=tiny", "--set", "precision=float32", "--set", "backend=torch"]
    options = ["--weights", str(weights), "--trust", str(weights), *tiny]
    command = [sys.executable, "-m", "scripts", "restore", str(folder / "in"), "-o", str(folder / "out"), *options, *more]
    ledger, marks, held = folder / "out" / "ledger.jsonl", {}, deque[float](maxlen=50)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        while process.poll() is None:
            held.append(resident_mb(process.pid))
            done = ledger.read_bytes().count(b'"outcome"') if ledger.is_file() else 0
            for mark in (count // 10, count // 2, count - 1):
                if done >= mark and mark not in marks:
                    marks[mark] = median(held), time.monotonic()
            time.sleep(0.1)
    return process.wait(), marks, (folder / "log").read_text().splitlines()


def resident_mb(pid: int) -> float:
    """Memory of a process in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def off(log: list[str], count: int) -> list[float]:
    """How far each time left was from the truth, as a share of it, between 5 and 95 % of the cases."""
    stamps = [datetime.fromisoformat(line[:19]) for line in log if re.match(r"\d{4}-", line)]
    shares = []
    for match, line in ((LEFT.match(line), line) for line in log):
        cases = int(re.search(r"(\d+) cases? left", line).group(1)) if match else 0
        if match and 0.05 * count <= cases <= 0.95 * count:
            truth = (stamps[-1] - datetime.fromisoformat(match.group(1))).total_seconds()
            shares.append(abs(float(match.group(2)) * SECONDS[match.group(3)] - truth) / max(truth, 1.0))
    return shares


def main() -> int:
    """Say what was measured; 1 where it is too much."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given, more = parser.parse_known_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder / "in", given.count, np.random.default_rng(given.seed))
        torch.save(ScoreFusion(size="tiny").state_dict(), folder / "tiny.pt")
        code, marks, log = watched(folder, folder / "tiny.pt", given.count, more)
    (first, _), *_, (last, _) = marks.values()
    shares = off(log, given.count)
    print(*log[-8:], sep="\n")
    print(
        f"exit code {code}; {', '.join(f'{mb:.0f} MB after {cases}' for cases, (mb, _) in marks.items())}; {len(log)} lines; "
        f"{len(shares)} times left, off by {median(shares):.0%} in the median, {max(shares):.0%} at worst, "
        f"while a case took {' and later '.join(f'{seconds:.2f} s' for seconds in each(marks))}"
    )
    return int(code != 2 or last > (1 + GROWTH) * first or len(log) > LINES or median(shares) > OFF)


def each(marks: dict[int, tuple[float, float]]) -> list[float]:
    """Seconds of a case between marks: how much the load of the machine changed."""
    return [(later - before) / (cases - earlier) for (earlier, (_, before)), (cases, (_, later)) in pairwise(marks.items())]


if __name__ == "__main__":
    sys.exit(main())
