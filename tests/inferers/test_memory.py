# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
import sys

import pytest
import torch

from scripts.bundle import bundle_root
from scripts.inferers import memory
from scripts.inferers.memory import given_back_beyond, resident_gb, used_gb

CPU = torch.device("cpu")
RESTORED = """
import logging, sys, torch
from scripts.diffusion import Diffusion, NoiseSchedule, sample_ddim
from scripts.inferers import FusedScoreInferer
from scripts.inferers.memory import peak_memory_gb
from scripts.networks import ScoreFusion
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
network = ScoreFusion(size="compact").eval()
inferer = FusedScoreInferer(Diffusion(NoiseSchedule("cosine")), sample_ddim, steps=1, precision="float32")
for sides in {sides}:
    inferer(torch.rand(1, 1, *sides), network)
print("peak", peak_memory_gb())
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is asked")


@linux
def test_the_forecast_is_the_peak_of_the_process_to_a_fifth_and_does_not_grow_with_the_volumes(rng):
    sides = [[*map(int, 64 + rng.integers(0, 16, 3))] for _ in range(2)]
    program = RESTORED.format(sides=sides)
    ended = subprocess.run([sys.executable, "-c", program], cwd=bundle_root(), capture_output=True, text=True, check=True)
    print(sides, ended.stdout)
    forecasts = [float(told) for told in re.findall(r"needs about ([\d.]+) GB, [\d.]+ GB of them used", ended.stdout)]
    assert len(forecasts) == 2
    forecast, rounding = max(forecasts), 0.05
    assert float(ended.stdout.split()[-1]) == pytest.approx(forecast, abs=0.2 * forecast + rounding)


@linux
def test_the_peak_is_the_process_s_own_and_not_that_of_who_started_it():
    program = "from scripts.inferers.memory import peak_memory_gb; print(peak_memory_gb())"
    large = torch.ones(1 << 28)  # 1 GB
    ended = subprocess.run([sys.executable, "-c", program], cwd=bundle_root(), capture_output=True, text=True, check=True)
    assert 0.1 < float(ended.stdout) < 0.9
    assert memory.peak_memory_gb() > 1
    del large


@linux
def test_freed_memory_that_is_only_kept_is_given_back_beyond_a_limit():
    memory.keep_freed_memory()
    memory._at_first.cache_clear()  # as in a new process
    assert used_gb(CPU) == pytest.approx(resident_gb(), abs=0.05)
    parts = [torch.zeros(1 << 20) for _ in range(200)]  # 0.8 GB
    pins = [torch.zeros(1 << 10) for _ in range(2)]
    assert used_gb(CPU) == pytest.approx(resident_gb(), abs=0.2)
    full = resident_gb()
    del parts
    assert resident_gb() > full - 0.2
    assert used_gb(CPU) < full - 0.6
    module = torch.nn.Identity()
    with given_back_beyond(full + 1, [module]):
        module(pins[0])
    assert resident_gb() > full - 0.2
    with given_back_beyond(full - 0.5, [module]):
        module(pins[1])
    assert resident_gb() < full - 0.6
    module(pins[0])
    assert not module._forward_pre_hooks
