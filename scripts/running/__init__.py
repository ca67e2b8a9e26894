# SPDX-License-Identifier: Apache-2.0
"""Running: a folder of cases through a network, what is checked before and recorded after."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case_evaluator import CaseEvaluator as CaseEvaluator
    from .case_evaluator import CaseLoader as CaseLoader
    from .case_evaluator import TolerantDataset as TolerantDataset
    from .checks import command_line as command_line
    from .checks import preflight as preflight
    from .choosing_inferer import ChoosingInferer as ChoosingInferer
    from .ledger import Ledger as Ledger
    from .record import RunRecord as RunRecord

_MODULE_OF = {
    "CaseEvaluator": "case_evaluator", "CaseLoader": "case_evaluator", "TolerantDataset": "case_evaluator",
    "ChoosingInferer": "choosing_inferer", "command_line": "checks", "preflight": "checks", "Ledger": "ledger",
    "RunRecord": "record",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for: a command says what it will do before it waits seconds for PyTorch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
