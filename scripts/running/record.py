# SPDX-License-Identifier: Apache-2.0
"""What a run did: the facts that a report tells of it."""

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from .. import bundle_version
from ..data.dicom import DicomSeries
from ..files import read_json, sha256, write_json
from ..inferers.memory import peak_memory_gb
from ..measurement import Task

RECORDS = ("results.json", "run.json")
PACKAGES = ("torch", "monai", "numpy")
MOST_WARNINGS = 50


class RunRecord:
    """Writes what a `CaseEvaluator` did as one JSON file: task, system, NFE, model, versions, warnings, and of every case its
    files and seconds. When no case was done nothing is written: the log has said why.

    path: the file, replaced atomically; system: what tells this run from others of its task; inferer: gives the NFE, if it has
    one; weights: the file whose name and sha256 are told.
    """

    writes_failures_alone = False

    def __init__(
        self, path: str, system: Mapping[str, Any], inferer: Any = None, *, weights: str | None = None, task: Task | None = None
    ) -> None:
        self.path, self.system, self.inferer, self.weights, self.task = Path(path), dict(system), inferer, weights, task
        self.warnings = _Warnings()

    def attach(self, engine: Engine) -> None:
        """Listen to warnings while the engine runs, write when it ends."""
        engine.add_event_handler(Events.STARTED, self.restart)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def restart(self, engine: Any = None) -> None:
        """Forget an earlier run."""
        self.warnings.lines.clear()
        logging.getLogger().addHandler(self.warnings)

    def write(self, engine: Any) -> None:
        """The file."""
        logging.getLogger().removeHandler(self.warnings)
        if not (engine.done or self.writes_failures_alone):
            return
        write_json(self.path, self.content(engine))

    def content(self, engine: Any) -> dict[str, Any]:
        """What is written."""
        return {
            **({} if self.task is None else {"task": self.task.content()}),
            "system": {**self.system, **_sampling(self.inferer)},
            "model": _model(self.weights),
            "versions": _versions(),
            "warnings": self.warnings.lines,
            "peak_memory_gb": peak_memory_gb(),
            "sources": _sources(engine),
            "cases": {case: {"seconds": engine.seconds[case]} for case in engine.done},
            "failures": engine.failures,
        }


class _Warnings(logging.Handler):
    """Keeps the lines of warnings, each once; errors are a run's failures, which are told by case."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.levelno == logging.WARNING and line not in self.lines and len(self.lines) < MOST_WARNINGS:
            self.lines.append(line)


def _sampling(inferer: Any) -> dict[str, Any]:
    """Sampler and NFE of an inferer that samples; of another one nothing, and what the system says of itself holds."""
    if not hasattr(inferer, "sampler"):
        return {}
    sampler = getattr(inferer.sampler, "func", inferer.sampler)  # of a function with options
    return {"sampler": getattr(sampler, "__name__", type(sampler).__name__), "nfe": inferer.nfe}


def _model(weights: str | None) -> dict[str, str]:
    return {} if weights is None else {"file": Path(weights).name, "sha256": sha256(Path(weights))}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in PACKAGES}
    return {"bundle": bundle_version(), "python": platform.python_version(), **packages}


def _sources(engine: Any) -> dict[str, dict[str, Any]]:
    """Of every case its files: `image` (a list) and, when it was evaluated, `label`."""
    sources: dict[str, dict[str, Any]] = {}
    for entry in getattr(engine.data_loader.dataset, "data", []):
        if isinstance(entry.get("image"), list):
            sources[str(entry["case"])] = {"image": [_told(image) for image in entry["image"]]}
            if "label" in entry:
                sources[str(entry["case"])]["label"] = _told(entry["label"])
    return sources


def _told(source: str | DicomSeries) -> str | dict[str, Any]:
    """A file by its full path; a DICOM series whole, so that a report can read it again whatever rule chose it."""
    return str(Path(source).absolute()) if isinstance(source, str) else source.content()


def record(folder: Path) -> dict[str, Any]:
    """The record that the latest run left in a folder, empty when none left one."""
    found = [path for name in RECORDS if (path := folder / name).is_file()]
    # An earlier run's metrics are not of what lies there now.
    return read_json(max(found, key=lambda path: path.stat().st_mtime)) if found else {}
