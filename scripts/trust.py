# SPDX-License-Identifier: Apache-2.0
"""Whose weights and configs a command takes: those that ship or were added, those made here, and those that its user names.

Python and `monai.bundle` ask nobody: who calls them writes what they load.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .errors import BadInput
from .files import sha256, write_text
from .models import folders, listed_sums

KEPT = 2  # sums of a file: between note and rename a process may be killed


class _Given(NamedTuple):
    places: list[Path]
    sums: set[str]


_asking: list[_Given] = []  # by the command that runs


@contextmanager
def asked_for(places: Iterable[str | Path] = (), sums: Iterable[str] = ()) -> Iterator[None]:
    """Within it weights and configs of others are refused. places: files, or folders of files, that are trusted all the same;
    sums: sha256 of such weights.
    """
    _asking.append(_Given([Path(place).expanduser().resolve() for place in places], {one.strip().lower() for one in sums}))
    try:
        yield
    finally:
        _asking.pop()


def asks() -> bool:
    """Whether a command runs that takes not everything."""
    return bool(_asking)


def is_named(path: str | Path) -> bool:
    """Whether the user of the command has named this file, or a folder above it."""
    file = Path(path).expanduser().resolve()
    return bool(_asking) and any(file.is_relative_to(place) for place in _asking[-1].places)


def check_weights(path: Path) -> None:
    """Raise BadInput for weights that neither ship, nor were written by this account here, nor are named by its user."""
    if not _asking or is_named(path) or not path.is_file():
        return
    if sha256(path) not in _asking[-1].sums | _named() | _made():
        fact = "these weights neither ship nor were trained by you here"
        raise BadInput(f"{path}: {fact}; if you know whose they are, add --trust {path}, or --sha256 as they published it")


def note(part: Path, path: Path) -> None:
    """Remember that this account makes the weights in `part`, which will take the name `path`: hashes of both, for nobody else.

    Where nothing can be remembered, as without a home, they need to be named when they are used.
    """
    with suppress(BadInput, OSError, RuntimeError):
        file = _folder() / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
        before = file.read_text(encoding="ascii").split() if file.is_file() else []
        write_text(file, "\n".join([sha256(part), *before][:KEPT]), private=True)


def _made() -> set[str]:
    """sha256 of what `note` remembers."""
    found: set[str] = set()
    with suppress(OSError, RuntimeError, ValueError):
        for file in _folder().iterdir():
            found.update(file.read_text(encoding="ascii").split())
    return found


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "score-fusion", "weights")


def _named() -> set[str]:
    """sha256 of the weights that ship, and of those that this user added."""
    return {total for folder in folders() for total in listed_sums(folder).values()}
