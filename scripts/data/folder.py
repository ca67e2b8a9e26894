# SPDX-License-Identifier: Apache-2.0
"""What lies below a folder, and what became of each file: used, left out because, or refused because."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import several
from .formats import suffix

logger = logging.getLogger(__name__)

FILES_AT_MOST, REASONS_AT_MOST = 20, 50  # in a record; counts are of all
REASONS_IN_LINE, NAMES_IN_LINE = 8, 3
# Images that are not read here, by how their names end.
OTHER_FORMATS = (
    ".nii.bz2", ".nii.xz", ".nii.zst", ".mnc", ".mif", ".mif.gz", ".mih", ".gipl", ".gipl.gz", ".vtk", ".vti", ".tif", ".tiff",
    ".brik", ".brik.gz", ".par", ".rec", ".v", ".h5", ".npy", ".npz", ".mat", ".jpg", ".png", ".bmp", ".zip", ".tar", ".tar.gz",
)  # fmt: skip
NAMELESS, IMAGELESS = "with a name that tells no modality", "a header whose image is not beside it"
UNREAD, UNUSED_DICOM = "of a format that is not read", "DICOM, of no series that is used"
MAGIC_AT, DICOM_MAGIC = 128, b"DICM"


class CaseList(list[dict[str, Any]]):
    """Entries of cases, and `files`: what became of every file of the folder, as `account` says it."""

    def __init__(self, entries: Iterable[dict[str, Any]], files: Mapping[str, Any] | None = None) -> None:
        super().__init__(entries)
        self.files = dict(files or {})

    def __getitem__(self, key: Any) -> Any:
        """An entry, or with a slice a list of the same account."""
        entries = super().__getitem__(key)
        return CaseList(entries, self.files) if isinstance(key, slice) else entries


def files_below(root: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every file in any depth, sorted by folder, but for those in hidden folders; links are followed, though not in circles."""
    if root.is_file():
        yield root
        return
    place = os.path.realpath(root)
    if place in above:
        return
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        logger.warning("%s: cannot be looked into (%s)", root, error.strerror)
        return
    folders = [entry for entry in entries if entry.is_dir()]
    yield from (root / entry.name for entry in entries if entry.is_file() or (entry.is_symlink() and not entry.is_dir()))
    for folder in folders:
        if folder.name[0] != ".":
            yield from files_below(root / folder.name, above | {place})


def account(
    root: Path, files: Iterable[Path], used: set[Path], reasons: Mapping[Path, str], refused: Mapping[Path, str]
) -> dict[str, Any]:
    """Counts for a record. reasons, refused: why a file is not used; of others the name says it."""
    left: dict[str, list[Path]] = {}
    bad: dict[str, list[Path]] = {}
    for path in files:
        if path in refused:
            bad.setdefault(refused[path], []).append(path)
        elif path not in used:
            left.setdefault(reasons.get(path) or _by_name(path), []).append(path)
    return {"folder": str(root), "used": len(used), "left_out": _grouped(root, left), "refused": _grouped(root, bad)}


def tell(content: Mapping[str, Any]) -> None:
    """An account, in one line for the log and one more where files have to be converted."""
    logger.info("%s: %s", content["folder"], summary(content))
    foreign = [group for group in content["left_out"] if group["reason"].startswith(UNREAD)]
    if foreign:
        names = [Path(file).name for group in foreign for file in group["files"]]
        fact = f"left out {several(sum(group['count'] for group in foreign), 'file')} {UNREAD}"
        logger.warning("%s: %s: %s; convert them to NIfTI", content["folder"], fact, ", ".join(names[:FILES_AT_MOST]))


def refuse(content: Mapping[str, Any], failures: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """An account after a run. failures: why a case failed -> its files, which were none of the used then."""
    folder = Path(content["folder"])
    bad = _grouped(folder, {reason: list(map(Path, files)) for reason, files in failures.items() if files})
    used = content["used"] - sum(group["count"] for group in bad)
    return {**content, "used": used, "refused": [*content["refused"], *bad]}


def summary(content: Mapping[str, Any]) -> str:
    """An account in one line."""
    told = [f"{group['count']} {group['reason']}{_names(group)}" for group in content["left_out"][:REASONS_IN_LINE]]
    more = [f"{len(content['left_out']) - len(told)} further reasons"] if len(content["left_out"]) > len(told) else []
    left = f"; left out: {', '.join([*told, *more])}" if told else ""
    used, refused = content["used"], sum(group["count"] for group in content["refused"])
    return f"{used} file{'s' * (used != 1)} used, {refused} refused{left}"


def _names(group: Mapping[str, Any]) -> str:
    """Of volumes that nobody could tell what they are; of others a count will do."""
    if group["reason"] not in (NAMELESS, IMAGELESS):
        return ""
    first = group["files"][:NAMES_IN_LINE]
    more = [f"{group['count'] - len(first)} more"] if group["count"] > len(first) else []
    return f" ({', '.join([*first, *more])})"


def _by_name(path: Path) -> str:
    """Why a file that nobody asked for is no case."""
    name = path.name.lower()
    if name[0] == ".":
        return "hidden"
    if other := next((ending for ending in OTHER_FORMATS if name.endswith(ending)), ""):
        return f"{UNREAD} ({other})"
    if name.endswith((".hdr", ".hdr.gz")):
        return IMAGELESS
    if suffix(path):
        return NAMELESS
    return UNUSED_DICOM if is_dicom(path) else f"no volume ({path.suffix.lower() or 'no ending'})"


def is_dicom(path: Path) -> bool:
    """Whether a file says so by its name or its first bytes."""
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with path.open("rb") as file:
            file.seek(MAGIC_AT)
            return file.read(len(DICOM_MAGIC)) == DICOM_MAGIC
    except OSError:
        return False


def _grouped(root: Path, groups: Mapping[str, list[Path]]) -> list[dict[str, Any]]:
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    told = [
        {"reason": reason, "count": len(paths), "files": [os.path.relpath(path, root) for path in paths[:FILES_AT_MOST]]}
        for reason, paths in ordered[:REASONS_AT_MOST]
    ]
    rest = sum(len(paths) for _, paths in ordered[REASONS_AT_MOST:])
    return [*told, {"reason": "for further reasons", "count": rest, "files": []}] if rest else told
