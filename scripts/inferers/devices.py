# SPDX-License-Identifier: Apache-2.0
"""What a device is called."""

import platform
from contextlib import suppress
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """As "2 threads of AMD EPYC", or the name of a GPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)} of {_processor()}"


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
