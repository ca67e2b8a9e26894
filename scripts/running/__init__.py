# SPDX-License-Identifier: Apache-2.0
"""Running: a folder of cases through a network, what is checked before and recorded after."""

from .case_evaluator import CaseEvaluator, TolerantDataset
from .preflight import command_line, preflight
from .record import RunRecord

__all__ = ["CaseEvaluator", "RunRecord", "TolerantDataset", "command_line", "preflight"]
