# SPDX-License-Identifier: Apache-2.0
"""What a run has done so far, on disk case by case: one that was stopped goes on where it was."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..data.dicom import DicomSeries
from ..data.formats import parts, stem
from ..errors import BadInput, listed, several
from ..files import clean_leftovers, sha256
from ..inferers.memory import peak_memory_gb
from .record import RunRecord, facts_in

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
LEDGER = "ledger.jsonl"
DONE, FAILED = "done", "failed"  # outcomes of cases
BEGUN, ENDED = "begun", "ended"  # of runs
RESULTS = (".nii.gz", ".dcm")
OF_RUN = ("device", "numbers")  # that a run knows when cases were computed


class Ledger:
    """Writes a JSON line when a case ends; within a `with` no other run writes into the same folder.

    record: of the run; beside its file lies the ledger. options: what else a result depends on. force: compute anew what is
    finished, but for what the same run did that was stopped. A case is finished where its latest line says so, of the same
    input, weights, options and version, and its files are there in their size.
    """

    def __init__(self, record: RunRecord, options: Mapping[str, Any] | None = None, *, force: bool = False) -> None:
        self.record, self.options, self.force = record, dict(options or {}), force
        self.path = record.path.with_name(LEDGER)
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be written ({error.strerror}); give another output_dir") from error
        self._lock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk: what was not written is not
                self._file.close()
        self._file = None

    def _lock(self) -> None:
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            fact = "another run writes there; wait for it, or give another output_dir"
            raise BadInput(f"{self.path.parent}: {fact}") from error
        except OSError:
            logger.warning(f"{self.path.parent}: files cannot be locked there, so take care that no other run writes into it")

    def unfinished(self, cases: Sequence[Mapping[str, Any]]) -> list[int]:
        """Places of the cases that are to be computed; the record keeps what is known of the others."""
        lines, identity = self._latest(), self.identity()
        self.clean(cases)
        finished = {}
        for place, entry in enumerate(cases):
            line = lines.get(str(entry["case"]), {})
            if line.get("identity") == identity and self._holds(line) and line["input"] == input_hash(entry):
                finished[place] = line
        self.record.earlier = {str(line["case"]): line for line in finished.values()}
        if finished:
            names = listed([str(line["case"]) for line in finished.values()])
            fact = "finished before, of the same input and options; --force computes them anew"
            logger.info(f"{several(len(finished), 'case')} {fact}: {names}")
        self.add({"run": BEGUN, "force": self.force, "identity": identity})
        return [place for place in range(len(cases)) if place not in finished]

    def clean(self, cases: Iterable[Mapping[str, Any]]) -> None:
        """Remove what a process that was killed left of cases."""
        for entry in cases:
            clean_leftovers(self.path.parent / str(entry["case"]))

    def write(self, case: str, outcome: str, facts: Mapping[str, Any]) -> None:
        """The line of a case, on the disk when this returns."""
        now = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "peak_memory_gb": peak_memory_gb()}
        result = {"identity": self.identity(), "files": self._files(case)}
        self.add({"case": case, "outcome": outcome, **facts, **result, **now, **self.record.run_facts()})

    def end(self) -> None:
        """Note that the run was not stopped."""
        self.add({"run": ENDED})

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line, on the disk when this returns."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            logger.warning(f"{self.path}: cannot be written ({error.strerror}), so a run that goes on will compute more anew")
            self.__exit__(None, None, None)

    def identity(self) -> str:
        """A name for all that results of one input depend on."""
        content = json.dumps(
            [self.record.identity(), self.options, _process(self.record.inferer)], sort_keys=True, default=repr
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def _latest(self) -> dict[str, dict[str, Any]]:
        """The last line of every case that counts. A line that was cut off, or of another hand, says nothing."""
        if self._file is None:
            return {}
        self._file.seek(0)
        texts = self._file.readlines()
        lines: dict[str, dict[str, Any]] = {}
        stopped = False  # whether the last run began with `force` and did not end
        for text in texts:
            try:
                line = json.loads(text)
                if line.get("run") == BEGUN:
                    if line["force"] and not (stopped and line.get("identity") == self.identity()):
                        lines = {}  # what follows was computed anew
                    stopped = bool(line["force"])
                elif line.get("run") == ENDED:
                    stopped = False
                else:
                    lines[str(line["case"])] = line
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        if texts and not texts[-1].endswith("\n"):  # what follows stands in a line of its own
            self._file.write("\n")
        return lines if stopped or not self.force else {}

    def _files(self, case: str) -> dict[str, int]:
        """Results of a case and their sizes."""
        folder = self.path.parent
        found = sorted(path for path in (folder / case).rglob("*") if path.name.endswith(RESULTS))
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}

    def _holds(self, line: Mapping[str, Any]) -> bool:
        files = line.get("files") or {}
        places = [(self.path.parent / name, size) for name, size in files.items()]
        there = all(place.is_file() and place.stat().st_size == size for place, size in places)
        return line.get("outcome") == DONE and bool(files) and there and "input" in line


def so_far(folder: Path, begun: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that did not end, with what its ledger says of cases. begun: as it was when the run began."""
    lines: dict[str, dict[str, Any]] = {}
    with suppress(OSError):
        for line in _parsed((folder / LEDGER).read_text(encoding="utf-8", errors="replace").splitlines()):
            if line.get("run") == BEGUN:
                lines.clear()
            elif "case" in line:
                lines[str(line["case"])] = line
    done = {case: line for case, line in lines.items() if line.get("outcome") == DONE}
    failed = {case: str(line.get("error", "")) for case, line in lines.items() if line.get("outcome") == FAILED}
    told = {key: line[key] for line in done.values() for key in OF_RUN if line.get(key)}
    peak = [float(line.get("peak_memory_gb") or 0.0) for line in lines.values()]
    return {
        **begun,
        **told,
        "peak_memory_gb": max([float(begun.get("peak_memory_gb") or 0.0), *peak]),
        "cases": {**begun.get("cases", {}), **{case: facts_in(line) for case, line in done.items()}},
        "failures": {**begun.get("failures", {}), **failed},
    }


def _parsed(texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Lines of a ledger but for those that were cut off, or are of another hand."""
    for text in texts:
        with suppress(ValueError):
            if isinstance(line := json.loads(text), dict):
                yield line


def input_hash(entry: Mapping[str, Any]) -> str:
    """Of all files of a case, in their order, and the JSON beside them; "" where one cannot be read."""
    content = hashlib.sha256()
    try:
        for source in entry.get("image", []):
            for file in source.files if isinstance(source, DicomSeries) else _with_others(Path(source).expanduser()):
                content.update(sha256(Path(file)).encode())
    except OSError:
        return ""
    return content.hexdigest()


def _with_others(file: Path) -> list[Path]:
    """A volume's file, those that belong to it, and what BIDS says of it."""
    sidecar = file.with_name(f"{stem(file)}.json")
    return [*parts(file), *([sidecar] if sidecar.is_file() else [])]


def _process(inferer: Any) -> dict[str, Any]:
    """What an inferer's answers depend on besides networks and task: process and sampler."""
    diffusion = getattr(inferer, "diffusion", None)
    named = {name: getattr(diffusion, name, None) for name in ("prediction", "residual", "sigma_data")}
    options = getattr(getattr(inferer, "sampler", None), "keywords", {})
    return {**named, "gammas": [float(gamma) for gamma in getattr(inferer, "gammas", [])], "sampler": options}
