# SPDX-License-Identifier: Apache-2.0
"""Zip files as folders."""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PureWindowsPath

from ..errors import BadInput, several
from ..files import temporary_folder
from .folder import files_below
from .formats import suffix
from .layouts import places, why_no_case

OF_A_MAC = "__MACOSX"  # where it packs what only itself reads
MOST_MEMBERS, MOST_RATIO, SMALL = 200_000, 100, 1e9  # files; unpacked to packed bytes, of what is larger than a GB unpacked

_unpacked: list[tempfile.TemporaryDirectory[str]] = []  # kept until the process ends: volumes are read late


@cache
def unzip(path: Path) -> Path:
    """A folder with the content of a zip, deleted when the process ends. Raises BadInput when it is damaged or too large."""
    folder = temporary_folder()
    _unpacked.append(folder)
    inside = Path(folder.name, path.stem)  # the name stands in messages, and is that of a case without another
    try:
        inside.mkdir()
        with zipfile.ZipFile(path) as archive:
            _check(path, archive.infolist(), shutil.disk_usage(folder.name).free)
            archive.extractall(inside)  # zipfile itself stops a member at the size it claims
    except BadInput:
        folder.cleanup()
        raise
    except Exception as error:  # every compression is broken in its own way; RuntimeError: it has a password
        folder.cleanup()
        raise BadInput(f"{path}: cannot be unzipped ({str(error)[:120]}); unzip it yourself, or copy it again") from error
    return inside


def content_of(folder: Path) -> Path:
    """The folder that a system packed alone, else what was unpacked.

    A folder that is part of a layout is none: of the files below none says whose it is.
    """
    while True:
        visible = [path for path in folder.iterdir() if path.name[0] != "." and path.name != OF_A_MAC]
        files = [path for path in files_below(folder) if suffix(path) and not why_no_case(path, folder)]
        if len(visible) != 1 or not visible[0].is_dir() or any(places(files, folder, ())):
            return folder
        (folder,) = visible


def _check(path: Path, members: Sequence[zipfile.ZipInfo], free: int) -> None:
    """Raise BadInput, before anything is written, for what would fill the disk, and for links and paths that lead elsewhere."""
    if astray := sum(map(_leads_elsewhere, members)):
        fact = f"holds {several(astray, 'link')} or paths that lead out of it, as no export of scans does"
        raise BadInput(f"{path}: {fact}; take it from whom you trust, and unzip it yourself")
    files = [member.filename for member in members if not member.is_dir()]
    if files and all(name.lower().endswith(".zip") for name in files):
        raise BadInput(f"{path}: holds zips alone; unzip it yourself")
    size, packed = sum(member.file_size for member in members), path.stat().st_size
    if size > free:
        fact = f"holds {size / 1e9:.1f} GB but {tempfile.gettempdir()} has {free / 1e9:.1f} GB free"
        raise BadInput(f"{path}: {fact}; unzip it yourself")
    if len(members) > MOST_MEMBERS or size > max(SMALL, MOST_RATIO * packed):
        fact = f"holds {len(members)} files of {size / 1e9:.1f} GB in {packed / 1e6:.3g} MB, as no export of scans does"
        raise BadInput(f"{path}: {fact}; unzip it yourself")


def _leads_elsewhere(member: zipfile.ZipInfo) -> bool:
    """A name may be of Windows; a kind of file, where one is told, is a plain one or a folder."""
    name, kind = PureWindowsPath(member.orig_filename), stat.S_IFMT(member.external_attr >> 16)
    return bool(name.anchor) or ".." in name.parts or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
