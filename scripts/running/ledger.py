# SPDX-License-Identifier: Apache-2.0
"""What a run has done so far, on disk case by case: one that was stopped goes on where it was."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..data.dicom import DicomSeries
from ..errors import BadInput, listed, several
from ..files import remove, sha256
from ..inferers.memory import peak_memory_gb
from .record import RunRecord

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
LEDGER = "ledger.jsonl"
DONE, FAILED = "done", "failed"
RESULTS = (".nii.gz", ".dcm")
LEFTOVER = re.compile(r"\.[0-9a-f]{12}\.(new|old)\.")  # of `files.whole`, from a process that was killed


class Ledger:
    """Writes a JSON line when a case ends; within a `with` no other run writes into the same folder.

    record: of the run; beside its file lies the ledger. options: what else a result depends on. force: compute anew what is
    finished. A case is finished where its latest line says so, of the same input, weights, options and version, and its files
    are there in their size.
    """

    def __init__(self, record: RunRecord, options: Mapping[str, Any] | None = None, *, force: bool = False) -> None:
        self.record, self.options, self.force = record, dict(options or {}), force
        self.path = record.path.with_name(LEDGER)
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be written ({error.strerror}); give another output_dir") from error
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._file.close()
                raise BadInput(
                    f"{self.path.parent}: another run writes there; wait for it, or give another output_dir"
                ) from error
        for leftover in (path for path in self.path.parent.glob("**/.*") if LEFTOVER.match(path.name)):
            remove(leftover)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._file is not None
        self._file.close()

    def unfinished(self, cases: Sequence[Mapping[str, Any]]) -> list[int]:
        """Places of the cases that are to be computed; the record keeps what is known of the others."""
        lines, identity = self._latest(), self._identity()
        finished = {}
        for place, entry in enumerate(cases):
            line = lines.get(str(entry["case"]), {})
            if not self.force and line.get("identity") == identity and self._holds(line) and line["input"] == input_hash(entry):
                finished[place] = line
        self.record.earlier = {str(line["case"]): line for line in finished.values()}
        if finished:
            names = listed([str(line["case"]) for line in finished.values()])
            fact = "finished before, of the same input and options; --force computes them anew"
            logger.info(f"{several(len(finished), 'case')} {fact}: {names}")
        return [place for place in range(len(cases)) if place not in finished]

    def write(self, case: str, outcome: str, facts: Mapping[str, Any]) -> None:
        """The line of a case, on the disk when this returns."""
        if self._file is None or self._file.closed:
            return
        run = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.record.run_facts(),
            "peak_memory_gb": peak_memory_gb(),
        }
        line = {"case": case, "outcome": outcome, **facts, "identity": self._identity(), "files": self._files(case), **run}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _identity(self) -> str:
        """A name for all that results of one input depend on."""
        content = json.dumps([self.record.identity(), self.options], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def _latest(self) -> dict[str, dict[str, Any]]:
        """The last line of every case. A line that was cut off, or of another hand, says nothing."""
        assert self._file is not None
        self._file.seek(0)
        lines: dict[str, dict[str, Any]] = {}
        cut = False
        for text in self._file:
            cut = not text.endswith("\n")
            try:
                line = json.loads(text)
                lines[str(line["case"])] = line
            except (ValueError, KeyError, TypeError):
                continue
        if cut:  # what follows stands in a line of its own
            self._file.write("\n")
        return lines

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


def input_hash(entry: Mapping[str, Any]) -> str:
    """Of all files of a case, in their order; "" where one cannot be read."""
    content = hashlib.sha256()
    try:
        for source in entry.get("image", []):
            for file in source.files if isinstance(source, DicomSeries) else [source]:
                content.update(sha256(Path(file).expanduser()).encode())
    except OSError:
        return ""
    return content.hexdigest()
