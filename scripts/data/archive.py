# SPDX-License-Identifier: Apache-2.0
"""Zip files as folders."""

import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from ..errors import BadInput

_unpacked: list[tempfile.TemporaryDirectory[str]] = []  # kept until the process ends: volumes are read late


@cache
def unzip(path: Path) -> Path:
    """A folder with the content of a zip, deleted when the process ends. Raises BadInput when it is damaged or too large."""
    folder = tempfile.TemporaryDirectory(prefix="score_fusion_")
    _unpacked.append(folder)
    inside = Path(folder.name, path.stem)  # the name stands in messages, and is that of a case without another
    inside.mkdir()
    free = shutil.disk_usage(folder.name).free
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > free:
                raise BadInput(
                    f"{path}: holds {size / 1e9:.1f} GB but {folder.name} has {free / 1e9:.1f} GB free; unzip it yourself"
                )
            archive.extractall(inside)
    except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:  # RuntimeError: it has a password
        raise BadInput(f"{path}: cannot be unzipped ({error}); unzip it yourself") from error
    return inside
