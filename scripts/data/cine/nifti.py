# SPDX-License-Identifier: Apache-2.0
"""Cine as 4D NIfTI, whose fourth axis must be time: other scans fill it with directions, echoes or components."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from ...errors import BadInput
from ...files import whole
from ..doubts import by, check_size, of_affine
from ..formats import FORMATS, Opened, stem
from .cine import MOST_S, Cine, Times, check_shape, check_times, check_voxels, closes
from .kinds import Kind

if TYPE_CHECKING:
    from ..provenance import Provenance

SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}  # xyzt_units
SPECTRAL = {32: "hertz", 40: "ppm", 48: "radians"}
NO_INTENT, TIME_SERIES = 0, 2001
UNSET = 1.0  # pixdim[4] without a unit where nobody set it
# BIDS suffixes of files whose volumes are no times, and fields of their JSON with a value a volume.
NOT_TIME = {
    "dwi": "diffusion directions", "asl": "labels and controls", "m0scan": "calibrations", "MESE": "echoes",
    "MEGRE": "echoes", "MP2RAGE": "inversions", "IRT1": "inversions", "VFA": "flip angles", "MPM": "contrasts",
    "fieldmap": "components", "TB1AFI": "repetition times", "TB1EPI": "flip angles",
}  # fmt: skip
FIELDS = {"EchoTime": "echoes", "InversionTime": "inversions", "FlipAngle": "flip angles", "EchoTimes": "echoes"}
TIMES = ("VolumeTiming", "FrameTimesStart")  # s, a volume
DECAYED = 0.5  # of the brightness of the first echo: what the last has lost


def read_nifti(path: Path) -> Cine:
    """(X, Y, slices, frames) as stored. Raises BadInput unless the fourth axis is time."""
    opened, header = _opened(path)
    shape = opened.shape
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4:
        raise BadInput(f"{path}: is {by(shape)}, of more axes than x, y, slice and time; give one loop of slices")
    check_shape(str(path), (*shape, 1, 1)[:4])
    check_size(path, shape, opened.dtype.itemsize, held=path.stat().st_size, packed=opened.packed)
    sidecar = _sidecar(path)
    _refuse_other_axes(path, header, sidecar, shape[3])
    times, doubts = _times(path, header, sidecar, shape[3])
    check_times(str(path), times)
    voxels = _voxels(path, opened).reshape(shape)
    doubts += [*opened.doubts, *of_affine(path, opened.affine), *check_voxels(str(path), voxels)]
    _refuse_decay(path, voxels)
    gated = closes(voxels)
    if gated:
        doubts.append(
            "does not say whether its loop closes; its last frame is as near the first as others to the next: it does"
        )
    return Cine(voxels, np.asarray(opened.affine, dtype=np.float64), times, gated, path, tuple(doubts))


def write_nifti(cine: Cine, like: Cine, path: Path, provenance: "Provenance | None" = None) -> None:
    """4D, float32, mm and s, with the form codes of the source."""
    from ..write import REMEDY, placed_image  # here: it brings PyTorch

    codes = _opened(like.source)[0].codes if like.source.is_file() else (1, 1)
    image = placed_image(cine.voxels, cine.affine, codes)
    image.header.set_xyzt_units("mm", "sec")
    step = (cine.frame_times[-1] - cine.frame_times[0]) / (len(cine.frame_times) - 1)
    image.header.set_zooms((*image.header.get_zooms()[:3], step))
    with whole(path, REMEDY) as part:
        nib.save(image, part)


def _opened(path: Path) -> tuple[Opened, Any]:
    """What the format of volumes says of the file, and the header itself."""
    if not path.is_file():
        raise BadInput(f"{path}: is no file; give a 4D NIfTI file")
    try:
        opened = FORMATS[".nii"].open(path)
        with nib.imageglobals.LoggingOutputSuppressor():
            return opened, nib.load(path).header
    except BadInput:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise _unreadable(path, error) from error


def _voxels(path: Path, opened: Opened) -> Any:
    if opened.dtype.kind not in "biuf":
        raise BadInput(f"{path}: holds {_kind_of_values(opened.dtype)}; convert it to one real number a voxel")
    try:
        return opened.voxels()
    except Exception as error:
        raise _unreadable(path, error) from error


def _kind_of_values(dtype: np.dtype[Any]) -> str:
    return "colours" if dtype.fields else f"{dtype} values"


def _unreadable(path: Path, error: Exception) -> BadInput:
    reason = (str(error).strip().splitlines() or [""])[-1][:120]
    return BadInput(f"{path}: cannot be read as NIfTI ({type(error).__name__}: {reason}); copy or convert it again")


def _sidecar(path: Path) -> Mapping[str, Any]:
    """The JSON beside a file of BIDS; empty where there is none that can be read."""
    try:
        content = json.loads(path.with_name(f"{stem(path)}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_other_axes(path: Path, header: Any, sidecar: Mapping[str, Any], frames: int) -> None:
    """Raise BadInput where anything says that the fourth axis is none of time."""
    beside = next((end for end in (".bval", ".bvec") if path.with_name(stem(path) + end).exists()), "")
    suffix = next((what for word, what in NOT_TIME.items() if stem(path).split("_")[-1].lower() == word.lower()), "")
    field = next((key for key in FIELDS if isinstance(sidecar.get(key), list) and len(sidecar[key]) == frames), "")
    unit, intent = int(header["xyzt_units"]) & 56, int(header["intent_code"])
    signs = (
        (beside, f"diffusion directions ({stem(path)}{beside} lies beside it)"),
        (suffix, f"{suffix} (its name ends in _{stem(path).split('_')[-1]})"),
        (field, f"{FIELDS.get(field, '')} ({field} in its JSON)"),
        (unit in SPECTRAL, f"a spectrum in {SPECTRAL.get(unit, '')} (xyzt_units)"),
        (intent not in (NO_INTENT, TIME_SERIES), f"no time (its intent_code is {intent})"),
    )
    if why := next((what for said, what in signs if said), ""):
        raise BadInput(f"{path}: its fourth axis is {why}, and a cine needs time there; give a film of something that moves")


def _times(path: Path, header: Any, sidecar: Mapping[str, Any], frames: int) -> tuple[Times, list[str]]:
    """Of the frames, s from the first: of the JSON where it tells each, else by pixdim[4]; and doubts."""
    for key in TIMES:
        listed = sidecar.get(key)
        if isinstance(listed, list) and len(listed) == frames and all(isinstance(time, int | float) for time in listed):
            return np.asarray(listed, dtype=np.float64) - listed[0], []
    step, unit, doubts = float(header["pixdim"][4]), int(header["xyzt_units"]) & 56, []
    if unit not in SECONDS:
        if step == UNSET:
            raise BadInput(
                f"{path}: does not say how long its frames last (pixdim[4] is 1 without a unit); set it and the unit"
            )
        unit = 16 if step > MOST_S else 8
        doubts.append(f"does not say the unit of its frame time {step:g}; taken as {'ms' if unit == 16 else 's'}")
    if not step > 0:  # nor a number
        raise BadInput(
            f"{path}: its frame time (pixdim[4]) is {step:g}; set how long a frame lasts, if the fourth axis is time"
        )
    return np.arange(frames, dtype=np.float64) * (step * SECONDS[unit]), doubts


def _refuse_decay(path: Path, voxels: Any) -> None:
    """Raise BadInput for volumes that only get darker, as echoes do: no loop of something that moves does."""
    brightness = np.abs(voxels).mean(axis=(0, 1, 2), dtype=np.float64)
    if len(brightness) > 2 and (np.diff(brightness) < 0).all() and brightness[-1] < DECAYED * brightness[0]:
        fact = (
            f"each volume is darker than the one before, the last {brightness[-1] / brightness[0]:.0%} as bright as the first"
        )
        raise BadInput(f"{path}: {fact}, as echoes are and no film is; give a film of something that moves")


KIND = Kind(read_nifti, write_nifti)
