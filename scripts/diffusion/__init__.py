# SPDX-License-Identifier: Apache-2.0
"""Diffusion: schedules, the process and samplers; knows no network and no file."""

from ..measurement.degradations import BlockAverage, Degradation, ThickScans
from .bridge import Bridge, sample_bridge
from .combinations import Alternating, AveragedStates
from .process import Diffusion
from .samplers import sample_ancestral, sample_ddim, sample_dpm_solver_pp_2m, sample_one_step
from .schedules import NoiseSchedule

__all__ = [
    "Alternating",
    "AveragedStates",
    "BlockAverage",
    "Bridge",
    "Degradation",
    "Diffusion",
    "NoiseSchedule",
    "ThickScans",
    "sample_ancestral",
    "sample_bridge",
    "sample_ddim",
    "sample_dpm_solver_pp_2m",
    "sample_one_step",
]
