# SPDX-License-Identifier: Apache-2.0
"""Keeps freed memory, because volumes are large and fetching fresh pages costs a third of the time."""

import ctypes
import sys

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # malloc.h


def keep_freed_memory(*, large: bool = True) -> bool:
    """Tell glibc to reuse freed blocks instead of returning each to the kernel; False where there is no glibc.

    large: also those of 1 MiB and more, which saves time; but what lies free between such blocks fits no other.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    options = {_MMAP_MAX: 0 if large else 65536, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _MMAP_THRESHOLD: 1 << 20}
    return all(mallopt(name, value) for name, value in options.items())


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
