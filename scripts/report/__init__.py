# SPDX-License-Identifier: Apache-2.0
"""Report: a finished run as pages to look at, each one file that needs no network."""

from .recovery_figure import RecoveryFigure
from .run import report

__all__ = ["RecoveryFigure", "report"]
