# SPDX-License-Identifier: Apache-2.0
"""What a device is called in logs and tables of times."""

import platform

import pytest
import torch

from scripts.inferers import devices

EPYC = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nprocessor : 1\nmodel\t: 1\nmodel name\t: next\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (EPYC, "AMD EPYC (family 25, model 17)"),  # two generations, one twice as fast as the other, say "AMD EPYC"
        (EPYC.replace("AMD EPYC", "AMD EPYC 9354"), "AMD EPYC 9354"),
        ("model name : Intel Xeon\n", "Intel Xeon"),
        ("Processor : AArch64\n", platform.processor() or platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_a_processor_is_called_by_its_generation(text, name, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    threads = torch.get_num_threads()
    assert devices.device_name(torch.device("cpu")) == f"{threads} thread{'s' * (threads > 1)} of {name}"
