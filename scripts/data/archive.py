# SPDX-License-Identifier: Apache-2.0
"""Zip files as folders."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..errors import BadInput

MOST_MEMBERS, MOST_RATIO, SMALL = 200_000, 100, 1e9  # files; unpacked to packed bytes, of what is larger than a GB unpacked

_unpacked: list[tempfile.TemporaryDirectory[str]] = []  # kept until the process ends: volumes are read late


@cache
def unzip(path: Path) -> Path:
    """A folder with the content of a zip, deleted when the process ends. Raises BadInput when it is damaged or too large."""
    folder = tempfile.TemporaryDirectory(prefix="score_fusion_")
    _unpacked.append(folder)
    inside = Path(folder.name, path.stem)  # the name stands in messages, and is that of a case without another
    inside.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive.infolist(), shutil.disk_usage(folder.name).free)
            archive.extractall(inside)  # zipfile itself stops a member at the size it claims
    except BadInput:
        raise
    except Exception as error:  # every compression is broken in its own way; RuntimeError: it has a password
        raise BadInput(f"{path}: cannot be unzipped ({str(error)[:120]}); unzip it yourself, or copy it again") from error
    return inside


def _check(path: Path, members: Sequence[zipfile.ZipInfo], free: int) -> None:
    """Raise BadInput for what would fill the disk, before anything is written."""
    size, packed = sum(member.file_size for member in members), path.stat().st_size
    if size > free:
        fact = f"holds {size / 1e9:.1f} GB but {tempfile.gettempdir()} has {free / 1e9:.1f} GB free"
        raise BadInput(f"{path}: {fact}; unzip it yourself")
    if len(members) > MOST_MEMBERS or size > max(SMALL, MOST_RATIO * packed):
        fact = f"holds {len(members)} files of {size / 1e9:.1f} GB in {packed / 1e6:.3g} MB, as no export of scans does"
        raise BadInput(f"{path}: {fact}; unzip it yourself")
