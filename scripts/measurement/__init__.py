# SPDX-License-Identifier: Apache-2.0
"""Measurement: what a scanner measured of a volume, as pure tensor mathematics; knows nothing of what is above it."""

from .degradations import BlockAverage, Degradation, ThickScans
from .task import Task

__all__ = ["BlockAverage", "Degradation", "Task", "ThickScans"]
