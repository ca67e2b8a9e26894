# SPDX-License-Identifier: Apache-2.0
"""The one way in which files are written: whole or not at all, on the disk before they take their name."""

import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .errors import BadInput

LONGEST = 200  # letters of a name that are kept in those of what is being written
LEFTOVER = re.compile(r"\.[0-9a-f]{12}\.(new|old)\.")  # of `files.whole`, from a process that was killed


@contextmanager
def whole(path: Path, remedy: str = "give another place to write to") -> Iterator[Path]:
    """A hidden place beside `path` to write a file or a folder to; it takes the place of `path` only when nothing failed.

    Its name is no other process's, it ends like `path`, and it is gone afterwards whatever happens. Folders above are made,
    and removed again if nothing is written. Raises BadInput with the remedy for an OSError.
    """
    part, older = (path.with_name(f".{uuid.uuid4().hex[:12]}.{what}.{path.name[-LONGEST:]}") for what in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _to_disk(part)
        if path.is_dir() and not path.is_symlink():  # a folder cannot be renamed onto another
            path.replace(older)
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from error
    finally:
        if older.exists() and not path.exists():
            older.replace(path)
        for leftover in (part, older):
            remove(leftover)
        with suppress(OSError):
            path.parent.rmdir()  # succeeds only when nothing was written in it


def write_tensors(path: Path, content: Any) -> None:
    """`torch.save` by way of memory, because torch itself does not say when a disk is full. Raises OSError."""
    import torch  # here: it takes a moment

    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def clean_leftovers(folder: Path, name: str = "") -> None:
    """What `whole` left in a folder, of the file of this name alone if given, when its process was killed.

    An older file or folder takes its name again if it lost it; what was being written goes.
    """
    for leftover in folder.glob(".*"):
        match = LEFTOVER.match(leftover.name)
        if match is None or (name and leftover.name[match.end() :] != name[-LONGEST:]):
            continue
        place = folder / leftover.name[match.end() :]
        if match.group(1) == "old" and not place.exists():
            leftover.replace(place)
        else:
            remove(leftover)


def write_text(path: str | Path, text: str, remedy: str = "give another place to write to", *, private: bool = False) -> None:
    """A text file in UTF-8, whole or not at all; private: for its owner's eyes alone (mode 600).

    What no letter stands for, as in a file's name of another encoding, is escaped as in JSON, which reads it back.
    """
    with whole(Path(path).expanduser(), remedy) as part:
        part.touch(0o600 if private else 0o666)  # before anything stands in it
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def printable(text: str) -> str:
    """What no letter stands for, as in a file's name of another encoding, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(
    path: str | Path, content: Any, remedy: str = "give another place to write to", *, private: bool = False
) -> None:
    """As `write_text`. Raises ValueError, and writes nothing, for numbers that are not finite."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", remedy, private=private)


def read_json(path: Path, remedy: str = "remove it and run again") -> dict[str, Any]:
    """A JSON file that holds an object. Raises BadInput with the remedy when it cannot be read as one."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON ({(str(error).splitlines() or [''])[0][:100]}); {remedy}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds no JSON object; {remedy}")
    return content


def temporary_folder() -> TemporaryDirectory[str]:
    """A folder of this process, removed at its end. Raises BadInput where there is no place for one."""
    try:
        return TemporaryDirectory(prefix="score_fusion_")
    except OSError as error:
        fact = f"no folder for what is temporary can be made ({error.strerror})"
        raise BadInput(f"{fact}; set TMPDIR to one that exists and has room") from error


def remove(path: Path) -> None:
    """A file or folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Every byte of a file, or of the files of a folder: a machine that stops now must not leave an empty file of this name."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        _sync(file)


def _sync(path: Path) -> None:
    with suppress(OSError):  # some file systems cannot, folders on Windows among them
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
