# SPDX-License-Identifier: Apache-2.0
"""Keeps freed memory, because volumes are large and fetching fresh pages costs a third of the time."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks instead of returning each to the kernel; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_TOP_PAD, 64 << 20))


def peak_memory_gb() -> float:
    """The most memory this process has held, in GB: of the GPU where there is one; NaN where nobody counts it."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
