# SPDX-License-Identifier: Apache-2.0
"""Diffusion: schedules, the process and samplers; knows no network and no file."""

from ..measurement.degradations import BlockAverage, Degradation, ThickScans
from . import samplers
from .bridge import Bridge, sample_bridge
from .combinations import Alternating, AveragedStates
from .process import Diffusion
from .samplers import *  # noqa: F403 (every sample_* of there)
from .schedules import NoiseSchedule

__all__ = [
    "Alternating", "AveragedStates", "BlockAverage", "Bridge", "Degradation", "Diffusion", "NoiseSchedule", "ThickScans",
    "sample_bridge",
]  # fmt: skip
__all__ += samplers.__all__
