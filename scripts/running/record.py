# SPDX-License-Identifier: Apache-2.0
"""What a run did: the facts that a report tells of it."""

import logging
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..bundle import bundle_version
from ..data.cases import ERROR
from ..data.dicom import DicomSeries
from ..data.folder import refuse
from ..data.identifiers import FILE, Identifiers
from ..errors import BadInput, several
from ..files import read_json, sha256, write_json
from ..inferers.devices import device_name
from ..inferers.memory import peak_memory_gb
from ..measurement import Task

logger = logging.getLogger(__name__)
RECORDS = ("results.json", "run.json")
PACKAGES = ("torch", "monai", "numpy")
MOST_WARNINGS = 50
SHORT = {"-i": "--input", "-o": "--output"}  # as the command line has them; their value may follow at once


class RunRecord:
    """Writes what a `CaseEvaluator` did as one JSON file: task, system, NFE, model, versions, device and the numbers it
    computed in, warnings, of every case files, seconds and doubts, what became of every file of the folder, and failures, even
    where there is nothing else.

    path: the file, replaced atomically; system: what tells this run from others of its task; inferer: gives the NFE, if it has
    one; weights: the file whose name and sha256 are told.
    """

    def __init__(
        self, path: str, system: Mapping[str, Any], inferer: Any = None, *, weights: str | None = None, task: Task | None = None
    ) -> None:
        self.path, self.system, self.inferer, self.weights = Path(path), dict(system), inferer, weights
        self.task = Task.of(system) if task is None and system.get("conditions") else task  # configs of 0.6, until 0.8
        self.warnings = _Warnings()
        self.started = ""
        self.earlier: dict[str, dict[str, Any]] = {}  # lines of a ledger, of cases that are not computed again
        self.device = ""
        self.peak_gb = 0.0  # of processes that computed cases for this one

    def attach(self, engine: Engine) -> None:
        """Listen to warnings while the engine runs, write when it ends; of a run with a ledger also when it begins."""
        engine.add_event_handler(Events.STARTED, self.restart)
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self.write)
        engine.stopped = lambda: self.write(engine, unfinished=True)  # type: ignore[attr-defined]  # of a run with a ledger

    def _begin(self, engine: Any) -> None:
        """Who is killed leaves no results under the record of an earlier run; `record` adds what the ledger says."""
        if getattr(engine.data_loader.dataset, "ledger", None) is None:
            return
        try:
            write_json(self.path, self.content(engine) | {"unfinished": True})
        except BadInput as error:  # of a full disk: results are written as long as they can be
            logger.warning(str(error))

    def restart(self, engine: Any = None) -> None:
        """Forget an earlier run, and say what this one is."""
        self.warnings.lines.clear()
        self.peak_gb = 0.0
        logging.getLogger().addHandler(self.warnings)
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        if engine is not None and len(engine.data_loader.dataset):
            logger.info(self._announcement(engine))
        if engine is not None:
            self.device = device_name(engine.state.device)

    def _announcement(self, engine: Any) -> str:
        what = "a run" if self.task is None else self.task.title
        cases, evaluations = len(engine.data_loader.dataset), getattr(self.inferer, "nfe", None)
        each = f", {several(evaluations, 'network evaluation')} each" if evaluations is not None else ""
        again = f", {samples} times" if (samples := getattr(self.inferer, "samples", 1)) > 1 else ""
        return f"{what}{self._by()}: {several(cases, 'case')}{each}{again}, on {device_name(engine.state.device)}"

    def _by(self) -> str:
        """Which weights answer, as far as is known before a case is read."""
        others = self.inferer.instead_of(self.weights) if hasattr(self.inferer, "instead_of") else []
        suits = f", {' or '.join(others)} where {'they' if len(others) > 1 else 'it'} saw such scans" if others else ""
        return "" if self.weights is None else f" with {Path(self.weights).name}{suits}"

    def write(self, engine: Any, *, unfinished: bool = False) -> None:
        """The file. unfinished: whether the run was stopped before its end."""
        logging.getLogger().removeHandler(self.warnings)
        write_json(self.path, self.content(engine) | ({"unfinished": True} if unfinished else {}))

    def identity(self) -> dict[str, Any]:
        """What the results of a run depend on besides its input."""
        return {
            **({} if self.task is None else {"task": self.task.content()}),
            "system": {**self.system, **_sampling(self.inferer)},
            "model": self.model,
            "bundle": bundle_version(),
            **_specialists(self.inferer),
        }

    def run_facts(self) -> dict[str, Any]:
        """What holds for all cases of a run."""
        return {
            "system": {**self.system, **_sampling(self.inferer)},
            "model": self.model,
            **_specialists(self.inferer),
            "versions": {"bundle": bundle_version(), "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
            "device": self.device,
            "numbers": getattr(self.inferer, "numbers", ""),
        }

    @cached_property
    def model(self) -> dict[str, str]:
        """Name and hash of the weights' file."""
        return {} if self.weights is None else {"file": Path(self.weights).name, "sha256": sha256(Path(self.weights))}

    def content(self, engine: Any) -> dict[str, Any]:
        """What is written."""
        earlier = {case: facts_in(line) for case, line in self.earlier.items()}
        identifiers, files = Identifiers(self.path.with_name(FILE)), _files(engine)
        if identifiers.entries:
            files.pop("folder", None)  # its name may be a patient's
        return {
            **({} if self.task is None else {"task": self.task.content()}),
            **self.run_facts(),
            "started": self.started,
            "options": _options(sys.argv[1:]),
            "warnings": self.warnings.lines,
            "peak_memory_gb": self.peak_gb or peak_memory_gb(),
            "sources": identifiers.keep_sources(_sources(engine)),
            "files": files,
            "cases": earlier | {case: facts_of(engine, case) for case in engine.done},
            "failures": engine.failures,
        }


def _options(words: Sequence[str]) -> list[str]:
    """Those of a command line, by their long names and without their values, which may name a patient."""
    return [SHORT.get(word[:2], word.partition("=")[0]) for word in words if word.startswith(("--", *SHORT))]


def _files(engine: Any) -> dict[str, Any]:
    """What became of the files below the folder; those of a case that failed were refused."""
    data = getattr(engine.data_loader.dataset, "data", [])
    if not (content := getattr(data, "files", {})):
        return {}
    entries = {str(entry["case"]): entry for entry in data}
    return refuse(content, {line: _paths(entries.get(case, {})) for case, line in engine.failures.items()})


def _paths(entry: Mapping[str, Any]) -> list[str]:
    """Files of an entry, but for those of a series that was refused before."""
    sources = [*entry.get("image", []), *([entry["label"]] if "label" in entry else [])]
    series = [source for source in sources if isinstance(source, DicomSeries) and not source.problem]
    files = [source for source in sources if not isinstance(source, DicomSeries)]
    return list(dict.fromkeys((*files, *(file for one in series for file in one.files))))


def facts_of(engine: Any, case: str) -> dict[str, Any]:
    """Seconds, doubts where there are any, and the file of weights where it is not that of the run."""
    weights = {"weights": name} if (name := engine.weights.get(case)) else {}
    return {"seconds": engine.seconds[case], **doubts_of(engine, case), **weights}


def facts_in(line: Mapping[str, Any]) -> dict[str, Any]:
    """As `facts_of`, from a line of the ledger."""
    return {key: line[key] for key in ("seconds", "doubts", "weights") if line.get(key)}


def doubts_of(engine: Any, case: str) -> dict[str, list[str]]:
    """As they stand with a case: nothing where there is no doubt."""
    return {"doubts": lines} if (lines := engine.doubts.get(case)) else {}


class _Warnings(logging.Handler):
    """Keeps the lines of warnings, each once; errors are a run's failures, which are told by case."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.levelno == logging.WARNING and line not in self.lines and len(self.lines) < MOST_WARNINGS:
            self.lines.append(line)


def _specialists(inferer: Any) -> dict[str, Any]:
    """sha256 of weights that may answer in place of a run's own, by task; nothing where there are none."""
    return {"specialists": known} if hasattr(inferer, "weights") and (known := inferer.weights()) else {}


def _sampling(inferer: Any) -> dict[str, Any]:
    """Sampler and NFE of an inferer that samples; of another one nothing, and what the system says of itself holds."""
    if not hasattr(inferer, "sampler"):
        return {}
    sampler = getattr(inferer.sampler, "func", inferer.sampler)  # of a function with options
    return {"sampler": getattr(sampler, "__name__", type(sampler).__name__), "nfe": inferer.nfe}


def _sources(engine: Any) -> dict[str, dict[str, Any]]:
    """Of every case its files: `image` (a list) and, when it was evaluated, `label`."""
    sources: dict[str, dict[str, Any]] = {}
    for entry in entries_of(engine):
        sources[str(entry["case"])] = {"image": [_told(image) for image in entry["image"]]}
        if "label" in entry:
            sources[str(entry["case"])]["label"] = _told(entry["label"])
    return sources


def entries_of(engine: Any) -> list[Mapping[str, Any]]:
    """Cases of `find_cases` that a run could read."""
    entries = getattr(engine.data_loader.dataset, "data", [])
    return [entry for entry in entries if isinstance(entry.get("image"), list) and ERROR not in entry]


def _told(source: str | DicomSeries) -> str | dict[str, Any]:
    """A file by its full path; a DICOM series whole, so that a report can read it again whatever rule chose it."""
    return str(Path(source).absolute()) if isinstance(source, str) else source.content()


def record(folder: Path) -> dict[str, Any]:
    """The record that the latest run left in a folder, with sources that only the owner may see; empty when none left one.

    Of a run that was killed, or is under way (`unfinished`), with the cases that ended so far.
    """
    from .ledger import so_far  # here: it imports this

    found = [path for name in RECORDS if (path := folder / name).is_file()]
    # An earlier run's metrics are not of what lies there now.
    content = read_json(max(found, key=lambda path: path.stat().st_mtime)) if found else {}
    if content.get("unfinished"):
        content = so_far(folder, content)
    sources = {**Identifiers(folder / FILE).sources, **content.get("sources", {})}
    return {**content, "sources": sources} if sources else content
