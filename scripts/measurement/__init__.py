# SPDX-License-Identifier: Apache-2.0
"""Measurement: what a scanner measured of a volume, as pure tensor mathematics; knows nothing of what is above it."""

from typing import TYPE_CHECKING, Any

from .as_scanned import AsScanned
from .task import Task

if TYPE_CHECKING:
    from .degradations import BlockAverage as BlockAverage
    from .degradations import Degradation as Degradation
    from .degradations import ThickScans as ThickScans

__all__ = ["AsScanned", "BlockAverage", "Degradation", "Task", "ThickScans"]


def __getattr__(name: str) -> Any:
    """Import what computes when it is asked for: a task alone needs no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from . import degradations

    return getattr(degradations, name)
