# SPDX-License-Identifier: Apache-2.0
"""Reading a volume of any format, its header alone or with its voxels. Nothing here waits for PyTorch."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadInput
from ..measurement.as_scanned import DENSE
from ..measurement.slices import thickest
from ..measurement.task import LOOP
from .dicom import DicomSeries
from .dicom.series import affine_of
from .doubts import Affine, Volume, by, check_size, of_affine, of_slices, of_voxels
from .formats import Opened, format_of, parts, stem

SMALLEST_SIDE = 5  # of a volume, in voxels
LARGEST_THICKNESS = 100.0  # of slices in mm; a sidecar that says more is wrong
SPACING_APART = 0.05  # of their spacing: what a sidecar may round


class Scan(NamedTuple):
    """Voxels (H, W, D) as they are stored, affine (4, 4) to mm in RAS, codes of sform and qform for the result, doubts.

    thickness: in mm along the coarsest axis, 0 where nobody says, NaN where what is said is none. loop: whether the
    third axis is time.
    """

    voxels: Volume
    affine: Affine
    codes: tuple[int, int]
    doubts: list[str]
    thickness: float = 0.0
    loop: bool = False


def read_source(source: str | Path | DicomSeries, *, constant: bool = False, loop: bool = False) -> Scan:
    """A file or a series. loop: whether its third axis is time, where no JSON beside it says so.

    Raises BadInput when it is missing, damaged, of no use or, unless `constant`, the same everywhere.
    """
    of_loop = None if isinstance(source, DicomSeries) else _doubts_of_loop(Path(source).expanduser())
    loop = loop or of_loop is not None
    if isinstance(source, DicomSeries):
        scan = Scan(_read_dicom(source), affine_of(source), (1, 1), [*source.doubts], source.thickness)
    else:
        file = Path(source).expanduser()
        voxels, header = read_file(file)
        thickness, between = (_told(file, key) for key in ("SliceThickness", "SpacingBetweenSlices"))
        apart = [] if loop else _doubts_of_spacing(header.affine, thickness, between)
        scan = Scan(voxels, header.affine, header.codes, [*header.doubts, *(of_loop or []), *apart], thickness)
    voxels, doubts = of_voxels(str(source), scan.voxels, constant=constant, loop=loop)
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0).tolist()
    if not (loop or constant):  # a film may stand still
        doubts += of_slices(voxels, _across(spacing))
    thickness = _along_coarsest(scan.thickness, spacing)
    return scan._replace(voxels=voxels, doubts=[*scan.doubts, *doubts], thickness=thickness, loop=loop)


def _across(spacing: Sequence[float]) -> int:
    """The axis that slices lie across: the coarsest, else the third as stored."""
    return 2 if (through := thickest(spacing)) is None else through


def _along_coarsest(thickness: float, spacing: Sequence[float]) -> float:
    """From the thickness of slices, the third axis as stored. Where pixels are coarser, these are as wide as they are apart.

    Files that were turned have other axes: a thickness that slices so near each other cannot have is of the coarsest axis.
    """
    through = thickest(spacing)
    if through in (None, 2) or not 0 < thickness <= DENSE * spacing[2]:
        return thickness
    return spacing[through]


def sidecar(file: Path) -> Path:
    """The JSON beside a volume, whether it is there or not."""
    return file.with_name(f"{stem(file)}.json")


def _doubts_of_loop(file: Path) -> list[str] | None:
    """What the JSON beside a volume doubts of a loop in time; None where it does not say that the volume is one."""
    try:
        content = json.loads(sidecar(file).read_bytes())
        return [str(line) for line in content.get("doubts", [])] if tuple(content["axes"]) == LOOP else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _doubts_of_spacing(affine: Affine, thickness: float, between: float) -> list[str]:
    """Where slices are elsewhere by the JSON (mm from centre to centre, or of the gap between them) than by the header.

    They may lie across any axis: converters turn what was scanned, and slices are finer than pixels in many a 3D scan.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    said = [between, between + thickness]
    if not between > 0 or any(abs(one - mm) <= SPACING_APART * mm for one, mm in itertools.product(said, spacing)):
        return []
    fact = f"its slices are {spacing[_across(spacing)]:.3g} mm apart by its header and {between:.3g} mm by the JSON"
    return [f"{fact}; the header counts: correct it if it is wrong"]


def _told(file: Path, key: str) -> float:
    """A length in mm that the JSON beside a file of BIDS says; 0 where none does, NaN where it cannot be read as one."""
    try:
        content = json.loads(sidecar(file).read_bytes())  # not a text: editors write UTF-16, or UTF-8 with a mark before it
        told = content.get(key) if isinstance(content, dict) else None
        told = told[0] if isinstance(told, list) and len(told) == 1 else told
        if told is None:
            return 0.0
        length = float(told) if type(told) in (int, float, str) else math.nan
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError, OverflowError):
        return math.nan
    return length if 0 < length < LARGEST_THICKNESS else math.nan


def checked_header(file: Path) -> Opened:
    """What a file's header says, its shape (H, W, D). Raises BadInput unless it promises a usable volume."""
    if file.is_symlink() and not file.exists():
        raise BadInput(f"{file}: is a link to {file.readlink()}, which is not there; fetch it, as with datalad get")
    if not file.is_file():
        raise BadInput(f"{file}: there is no such file; check dataset_dir or the datalist")
    how = format_of(file)
    try:
        opened = how.open(file)
        held = sum(part.stat().st_size for part in parts(file))
    except BadInput:
        raise
    except Exception as error:
        raise _unreadable(file, error) from error
    shape = list(opened.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3:
        remedy = "give one volume a file, or of a loop in time --task cine_super_resolution"
        raise BadInput(f"{file}: is {by(shape)} and so not a 3D volume; {remedy}")
    if min(shape) < SMALLEST_SIDE:
        raise BadInput(f"{file}: is {by(shape)}, but a volume needs at least {SMALLEST_SIDE} voxels a side")
    if opened.dtype.kind not in "biuf":
        raise BadInput(f"{file}: holds {opened.dtype} values; convert it to one real number a voxel")
    check_size(file, shape, opened.dtype.itemsize, held=held, packed=opened.packed)
    return opened._replace(shape=tuple(shape), doubts=[*opened.doubts, *of_affine(file, opened.affine)])


def read_file(file: Path) -> tuple[npt.NDArray[np.float32], Opened]:
    """Voxels (H, W, D) as they are stored, and the header. Raises BadInput when either is damaged or of no use."""
    opened = checked_header(file)
    try:
        return opened.voxels().reshape(opened.shape), opened
    except Exception as error:  # a damaged file fails in as many ways as there are compressions
        raise _unreadable(file, error) from error


def _read_dicom(series: DicomSeries) -> Volume:
    from .dicom.find import too_small
    from .dicom.read import read_series  # needs pydicom, which MONAI Label pins to an older version

    return read_series(replace(series, problem=series.problem or too_small(series)))


def _unreadable(file: Path, error: Exception) -> BadInput:
    reason = str(error).strip().splitlines()[-1:] or [""]
    fact = f"cannot be read as {format_of(file).name} ({type(error).__name__}: {reason[0][:120]})"
    return BadInput(f"{file}: {fact}; copy or convert it again")
