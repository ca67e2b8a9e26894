# SPDX-License-Identifier: Apache-2.0
"""How a process of ours starts and ends, whatever its command; imports only the standard library."""

import atexit
import gc
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def start(*, alone: bool) -> None:
    """Before anything is imported. alone: whether this process is there for one command and ends with it."""
    # Read when PyTorch is imported: threads that wait for each other would else spin, and take the cores from other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if alone:
        # Cycles are not looked for among half a million objects of modules, which never go: that took a quarter of the time of
        # imports, and two seconds when the process ended.
        gc.disable()
        atexit.register(gc.freeze)


def run(module: str, function: str, package: str | None, options: Mapping[str, Any]) -> None:
    """Call a function by the name of its module; from then on cycles are looked for again, among what is new."""
    called = getattr(import_module(module, package), function)
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    called(**options)
