# SPDX-License-Identifier: Apache-2.0
"""Keeps freed memory, because volumes are large and fetching fresh pages costs a third of the time; but only so much."""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # malloc.h
_COUNTS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Counts(ctypes.Structure):
    """What glibc's `mallinfo2` tells, in bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in _COUNTS]


def keep_freed_memory(*, large: bool = True) -> bool:
    """Tell glibc to reuse freed blocks instead of returning each to the kernel; False where there is no glibc.

    large: also those of 1 MiB and more, which saves time; but what lies free between such blocks fits no other.
    """
    if (glibc := _glibc()) is None:
        return False
    options = {_MMAP_MAX: 0 if large else 65536, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _MMAP_THRESHOLD: 1 << 20}
    return all(glibc.mallopt(name, value) for name, value in options.items())


@contextmanager
def given_back_beyond(limit_gb: float, modules: Iterable[nn.Module]) -> Iterator[None]:
    """While networks run: freed memory goes back to the kernel where one of the modules is called and the process holds more.

    What lies free between blocks that are used is too small for the next volume, which is of another size: without this a
    process grows from case to case.
    """
    glibc = _glibc()

    def check(*_: Any) -> None:
        if glibc is not None and resident_gb() > limit_gb:
            glibc.malloc_trim(0)

    hooks = [module.register_forward_pre_hook(check) for module in modules]
    if hooks:  # what the last volume left
        check()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def resident_gb() -> float:
    """Memory of this process that lies in RAM now, in GB; 0 where nobody counts it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    except OSError:
        return 0.0


def used_gb(device: torch.device) -> float:
    """As `resident_gb`, without freed memory that is only kept; of a GPU what tensors hold there."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e9
    resident, allocated = _at_first()
    return min(resident + _allocated_gb() - allocated, resident_gb())


@cache
def _at_first() -> tuple[float, float]:
    """Resident and allocated memory when it was first asked for; nothing is kept then."""
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)
    return resident_gb(), _allocated_gb()


def _allocated_gb() -> float:
    """What glibc has given out, in GB; 0 where there is none."""
    if (glibc := _glibc()) is None or not hasattr(glibc, "mallinfo2"):  # glibc 2.33
        return 0.0
    glibc.mallinfo2.restype = _Counts
    counts = glibc.mallinfo2()
    return float(counts.uordblks + counts.hblkhd) / 1e9


@cache
def _glibc() -> Any:
    """The C library, None where it is another one."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "mallopt") else None


def peak_memory_gb() -> float:
    """The most memory this process has held, in GB: of the GPU where there is one; NaN where nobody counts it."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:  # not the kernel's ru_maxrss, which starts at the peak of the process that started this one
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return float(lines["VmHWM"].split()[0]) * 1024 / 1e9
    except (OSError, KeyError):
        pass
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
