# SPDX-License-Identifier: Apache-2.0
"""A case computed by a worker of a cluster: as in a run on one machine, but for the ledger, whose line it sends back."""

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple, Self

import torch
from monai.bundle import ConfigParser

from ..errors import BadInput
from .case_evaluator import CaseEvaluator
from .ledger import Ledger
from .workflow import PACKAGE

_turn = Lock()  # a worker computes one case at a time, with all its threads


class Answer(NamedTuple):
    """The line of a case in the ledger, and what was warned of meanwhile."""

    line: dict[str, Any]
    warnings: list[str]


class Notes(Ledger):
    """A ledger that keeps the latest case's line in memory: the file is its owner's, who sent the case."""

    line: dict[str, Any]

    def __enter__(self) -> Self:
        if not self.path.is_file():
            fact = "is not seen from there; write to a folder that all machines share, under the same path"
            raise BadInput(f"{platform.node()}: {self.path.parent} {fact}")
        return self

    def unfinished(self, cases: Sequence[Mapping[str, Any]]) -> list[int]:
        """All of them; what a killed worker left of them is cleaned up."""
        self.clean(cases)
        return list(range(len(cases)))

    def add(self, line: Mapping[str, Any]) -> None:
        """Keep a case's line, and say where it was computed."""
        if "case" in line:
            self.line = {**line, "host": platform.node()}


def recipe_of(config: Mapping[str, Any]) -> str:
    """What workers build once, as JSON: a workflow as loaded, without its cases, its record and its ledger's file."""
    recipe = {key: value for key, value in config.items() if key != "_meta_"}
    recipe["dataset"] = {**recipe["dataset"], "data": []}
    recipe["ledger"] = {**recipe["ledger"], "_target_": f"{PACKAGE}.running.notes.Notes"}
    return json.dumps({**recipe, "handlers": []}, default=str)


def restore_case(recipe: str, entry: Mapping[str, Any]) -> Answer:
    """Restore an entry of `find_cases` and write its result. Raises BadInput for what is wrong with all cases."""
    from distributed import get_worker  # here: an extra

    with _turn:
        torch.set_num_threads(get_worker().state.nthreads)
        evaluator, notes = _built(recipe)
        evaluator.data_loader.dataset.data = [entry]  # type: ignore[union-attr]
        notes.record.restart(evaluator)
        with suppress(SystemExit):  # a case that failed: its line says so
            evaluator.run()
        return Answer(notes.line, list(notes.record.warnings.lines))


@lru_cache(maxsize=1)
def _built(recipe: str) -> tuple[CaseEvaluator, Notes]:
    """Weights are loaded once for all cases."""
    config = ConfigParser(json.loads(recipe))
    return config.get_parsed_content("evaluator"), config.get_parsed_content("ledger")
