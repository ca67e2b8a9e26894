# SPDX-License-Identifier: Apache-2.0
"""What a device is called."""

import platform
from contextlib import suppress
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")


def device_name(device: torch.device) -> str:
    """As "2 threads of AMD EPYC", or the name of a GPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)} of {_processor()}"


def _processor() -> str:
    """Its model; also family and number where a virtual machine's has no generation, as "AMD EPYC (family 25, model 17)"."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{title} {facts[key]}" for title, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    return name if any(letter.isdigit() for letter in name) or not numbers else f"{name} ({', '.join(numbers)})"
