# SPDX-License-Identifier: Apache-2.0
"""Diffusion: schedules, the process, samplers and degradation operators; knows no network and no file."""

from .degradations import BlockAverage, Degradation
from .process import Diffusion
from .samplers import sample_ancestral, sample_ddim, sample_dpm_solver_pp_2m, sample_one_step
from .schedules import NoiseSchedule

__all__ = [
    "BlockAverage",
    "Degradation",
    "Diffusion",
    "NoiseSchedule",
    "sample_ancestral",
    "sample_ddim",
    "sample_dpm_solver_pp_2m",
    "sample_one_step",
]
