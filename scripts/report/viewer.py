# SPDX-License-Identifier: Apache-2.0
"""The viewer in a case's page: its volumes as small NIfTI files within the page, and NiiVue, which draws them offline."""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from .slices import MAPS, Look, Volume, visible_box

LARGEST = 12_000_000  # characters of all volumes of a page in base64
LEVELS = 254  # grey levels less one, an even number: no error at all has a level of its own
BEYOND = 3  # times what is drawn is told apart; what exceeds that is outliers, which would leave few levels to the rest
NIIVUE = Path(__file__).parent / "niivue"  # as released; README.md there


def viewer_parts(volumes: Mapping[str, Volume], affine: npt.NDArray[np.float64], styles: Mapping[str, Look]) -> dict[str, str]:
    """What viewer.html wants: `volumes` (JSON), `resolution` (what was halved, or nothing), `niivue` and its `licence`.

    volumes: name -> (H, W, D) in RAS; affine: 4x4, voxels to mm. All are cropped to what is visible, and averaged over pairs of
    voxels, the finest axes first, until the page can hold them.
    """
    box = visible_box(volumes, styles)
    shown = {name: volume[box] for name, volume in volumes.items()}
    place = affine.copy()
    place[:3, 3] += affine[:3, :3] @ [span.start for span in box]
    full = _spacing(place)
    while (files := _files(shown, place, styles)) is None:
        shown, place = _halved(shown, place)
    told = [{"name": name, **_told(name, styles[name]), "file": file} for name, file in files.items()]
    return {
        "volumes": json.dumps(told).replace("<", "\\u003c"),
        "resolution": "" if _spacing(place) == full else f"Drawn at {_spacing(place)} mm; the files have {full} mm.",
        "niivue": base64.b64encode((NIIVUE / "niivue.umd.js.gz").read_bytes()).decode(),
        "licence": (NIIVUE / "LICENSE").read_text(encoding="utf-8"),
    }


def _told(name: str, look: Look) -> dict[str, object]:
    return {"map": name in MAPS, "low": look.low, "high": look.high, "ends": look.ends, "unit": look.unit, "colors": look.stops}


def _files(volumes: Mapping[str, Volume], affine: npt.NDArray[np.float64], styles: Mapping[str, Look]) -> dict[str, str] | None:
    """NIfTI files in base64, or None where they are too large together."""
    found: dict[str, str] = {}
    for name, volume in volumes.items():
        found[name] = base64.b64encode(_nifti(volume, affine, _range(name, volume, styles[name]))).decode()
        if sum(map(len, found.values())) > LARGEST:
            return None
    return found


def _range(name: str, volume: Volume, look: Look) -> tuple[float, float]:
    if name in MAPS:
        return BEYOND * look.low, BEYOND * look.high
    return max(float(volume.min()), -look.high), min(float(volume.max()), BEYOND * look.high)


def _nifti(volume: Volume, affine: npt.NDArray[np.float64], span: tuple[float, float]) -> bytes:
    """A compressed file of 8-bit levels between two values, with nothing in its header but grid and scale."""
    step = (span[1] - span[0]) / LEVELS or 1.0
    levels = np.round((np.clip(volume, *span) - span[0]) / step).astype(np.uint8)
    # The axis along which neighbours are most alike comes first: slices shown repeated then take a quarter of the bytes.
    order = sorted(range(3), key=lambda axis: np.count_nonzero(np.diff(levels, axis=axis)))
    image = nib.Nifti1Image(levels.transpose(order), affine[:, [*order, 3]])
    image.header.set_slope_inter(step, span[0])
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 6, mtime=0)


def _halved(
    volumes: Mapping[str, Volume], affine: npt.NDArray[np.float64]
) -> tuple[dict[str, Volume], npt.NDArray[np.float64]]:
    from skimage.measure import block_reduce  # here: few pages need it

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    factors = np.where(spacing < 1.2 * spacing.min(), 2, 1)
    coarse = affine @ np.diag([*factors, 1.0])
    coarse[:3, 3] += affine[:3, :3] @ ((factors - 1) / 2)
    return {name: block_reduce(volume, tuple(factors), np.mean) for name, volume in volumes.items()}, coarse


def _spacing(affine: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{side:.3g}" for side in np.linalg.norm(affine[:3, :3], axis=0))
