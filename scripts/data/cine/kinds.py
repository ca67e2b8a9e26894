# SPDX-License-Identifier: Apache-2.0
"""Which kind of file a cine is in, and what reads and writes that kind. A result is of the kind of its source."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import BadInput
from .cine import Cine

if TYPE_CHECKING:
    from ..provenance import Provenance

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".gif")
SUFFIXES = {"nifti": (".nii", ".nii.gz"), "video": VIDEOS}


class Kind(NamedTuple):
    """read: a path to a cine. write: a result, the cine that it is like, a path, and what made it."""

    read: Callable[[Path], Cine]
    write: Callable[[Cine, Cine, Path, Provenance | None], None]


def read_cine(path: str | Path) -> Cine:
    """A folder of DICOM files or one of many frames, a 4D NIfTI file, or a video.

    Raises BadInput when it is no cine, is damaged, or its frames are not at even times.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise BadInput(f"{source}: there is no such file or folder; check the path")
    return _kind(_name_of(source)).read(source)


def write_cine(cine: Cine, like: Cine, path: str | Path, *, provenance: Provenance | None = None) -> None:
    """Write a result as the kind of file that `like` was read from; an older one is replaced when the new one is whole.

    cine: on the grid of `like` or a finer one, its frames within or between those of `like`, on the same clock. What voxels do
    not hold (colours, places and times in headers) is read again from `like.source`. path: a folder for DICOM, else a file of
    the same suffix; a video may be of another container. provenance: what made it, without which no DICOM is written.
    Raises BadInput when the source cannot be read again or nothing can be written there.
    """
    place, name = Path(path).expanduser(), _name_of(like.source)
    if name != "dicom" and _by_suffix(place) != name:
        raise BadInput(f"{place}: a result is of the kind of its source, {like.source.name}; end its name as that")
    _kind(name).write(cine, like, place, provenance)


def _name_of(path: Path) -> str:
    """Of the module of its kind."""
    from ..dicom.stream import is_dicom

    if not path.is_dir() and (name := _by_suffix(path)):
        return name
    if path.is_dir() or is_dicom(path):
        return "dicom"
    raise BadInput(f"{path}: is no cine; give a folder of DICOM files, a 4D NIfTI file or a video ({', '.join(VIDEOS)})")


def _by_suffix(path: Path) -> str:
    return next((name for name, ends in SUFFIXES.items() if path.name.lower().endswith(ends)), "")


def _kind(name: str) -> Kind:
    """Imported when it is needed: pydicom, PyAV and nibabel are slow, and not everywhere."""
    kind: Kind = import_module(f"{__package__}.{name}").KIND
    return kind
