# SPDX-License-Identifier: Apache-2.0
"""What some tests need around them, and how those are counted that were skipped for want of it."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from scripts import bundle_root

SHARED = Path(bundle_root()).parent / "shared"
SCANS = SHARED / "data"
NEEDS = "needs "


def awakened(module):
    """The module, whose all-zero parameters get random values: new networks say zero otherwise."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module


def needs(thing, present):
    """A mark for tests that are skipped unless the thing is there."""
    return pytest.mark.skipif(not present, reason=NEEDS + thing)


needs_scans = needs("../shared/data", SCANS.is_dir())
needs_dciodvfy = needs("dciodvfy", shutil.which("dciodvfy"))


def skipped_in_words(reasons):
    """One line for the reasons that pytest gives, the most frequent first; None where nothing was skipped."""
    counts = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    if not counts:
        return None
    told = [
        f"{n} need{'s' * (n == 1)} {reason.removeprefix(NEEDS)}" if reason.startswith(NEEDS) else f"{n} {reason}"
        for reason, n in counts.most_common()
    ]
    return f"{counts.total()} skipped: {', '.join(told)}"
