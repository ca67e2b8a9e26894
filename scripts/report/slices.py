# SPDX-License-Identifier: Apache-2.0
"""Slices of volumes as compressed pictures: one sheet of tiles for every plane and volume."""

import base64
import math
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import Colormap, to_hex
from matplotlib.image import imsave

from ..errors import BadInput
from ..inferers.intervals import LEVEL
from ..measurement.planes import PLANES
from ..measurement.task import SPACE

Volume = npt.NDArray[np.floating]
STEPS = (2, 3, 4, 6, 8)  # show every 2nd slice, fewer when a page would become too large
LARGEST_BYTES = 8_000_000  # of all pictures of a page, before base64 makes them 4/3 of it
LARGEST_SIDE = 16383  # pixels of a WebP
QUALITY = 85
MARGIN = 3
FINEST = 0.005  # least range of a map: rounding errors are not to look like errors
VISIBLE = 0.03  # of what is drawn white: darker is background
DARK = "#000000"  # as the page around the pictures
MAPS = ("error", "uncertainty", "interval")


class Look(NamedTuple):
    """Colours of a volume, between which values, and how they are written under it."""

    colors: Colormap
    low: float
    high: float
    unit: str = ""

    @property
    def stops(self) -> list[str]:
        """Colours from low to high, evenly spaced, as #rrggbb."""
        return [to_hex(self.colors(x)) for x in np.linspace(0, 1, 33)]

    @property
    def gradient(self) -> str:
        """The colours as a CSS gradient."""
        return f"linear-gradient(90deg, {', '.join(self.stops)})"

    @property
    def ends(self) -> tuple[str, str]:
        """The values at both ends as written beside the colours."""
        return (f"{self.low:+.2g}", f"{self.high:+.2g}") if self.low else ("0", f"{self.high:.2g}")


class Plane(NamedTuple):
    """One plane: which slices are shown, how their tiles lie on a sheet, and a WebP sheet (data URI) for every volume."""

    name: str
    axis: int
    aspect: float  # width / height in mm
    columns: int
    rows: int
    labels: Sequence[str]
    sheets: Mapping[str, str]


def looks(volumes: Mapping[str, Volume], *, samples: int | None = None, own: Collection[str] = ()) -> dict[str, Look]:
    """Grey for images, all on one scale; blue (too dark), white, red (too bright) for the error; magma for the other maps.

    samples: how many the uncertainty is of, where that is known; own: images that span their own range, as `CaseVolumes` says.
    """
    reference = volumes.get("truth", volumes["result"])
    top = _top(reference)
    inside = reference > VISIBLE * top
    if not inside.any():
        inside = np.ones_like(reference, dtype=bool)
    found = {name: Look(_map("gray"), 0.0, 1.0 if name in own else top) for name in volumes}
    scale = f"of the range of the {'truth' if 'error' in volumes else 'result'}"
    units = {
        "error": scale,
        "uncertainty": f"standard deviation of {samples or 'the'} samples, {scale}",
        "interval": f"half the width of the {LEVEL:.0%} interval, {scale}",
    }
    for name in MAPS:
        if name in volumes:
            bound = max(float(np.quantile(np.abs(volumes[name][inside]), 0.99)), FINEST)
            colors, low = ("RdBu_r", -bound) if name == "error" else ("magma", 0.0)
            found[name] = Look(_map(colors), low, bound, units[name])
    return found


def _top(reference: Volume) -> float:
    """The bright end of what is not background, which a few hot voxels do not set, however hot."""
    above = reference[reference > 0]
    inside = above[above > VISIBLE * np.quantile(above, 0.999)] if above.size else reference
    return float(np.quantile(inside, 0.999))


def _map(name: str) -> Colormap:
    return colormaps[name].with_extremes(bad=DARK)


def planes(volumes: Mapping[str, Volume], affine: npt.NDArray[np.float64], styles: Mapping[str, Look]) -> list[Plane]:
    """All planes of volumes (H, W, D) in RAS, cropped to what is visible in any of the images.

    The left of a picture is the patient's left (posterior in the sagittal plane), its top superior (anterior in the axial).
    """
    box = visible_box(volumes, styles)
    cropped = {name: volume[box] for name, volume in _masked(volumes, styles).items()}
    start = [span.start for span in box]
    made: list[Plane] = []
    for step in STEPS:
        made = [_plane(name, cropped, styles, affine=affine, start=start, step=step) for name in reversed(PLANES)]
        if sum(len(sheet) for plane in made for sheet in plane.sheets.values()) * 3 / 4 < LARGEST_BYTES:
            break
    return made


def _plane(
    name: str, volumes: Mapping[str, Volume], styles: Mapping[str, Look], *, affine: npt.NDArray[np.float64],
    start: Sequence[int], step: int,
) -> Plane:  # fmt: skip
    axis = PLANES[name]
    sides = next(iter(volumes.values())).shape
    across, up = (other for other in range(3) if other != axis)
    most = [LARGEST_SIDE // sides[other] for other in (across, up)]  # tiles along a sheet's sides
    if not all(most):
        raise BadInput(f"its {name} slices have {sides[across]}x{sides[up]} voxels, a picture at most {LARGEST_SIDE} a side")
    step = max(step, math.ceil(sides[axis] / (most[0] * most[1])))
    indices = range(sides[axis] % step // 2, sides[axis], step)
    columns = min(max(math.ceil(math.sqrt(len(indices))), math.ceil(len(indices) / most[1])), most[0])
    rows = math.ceil(len(indices) / columns)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    aspect = float(sides[across] * spacing[across] / (sides[up] * spacing[up]))
    labels = [_label(axis, index, affine=affine, start=start, sides=sides) for index in indices]
    sheets = {key: _webp(_sheet(volume, axis, indices, columns), styles[key]) for key, volume in volumes.items()}
    return Plane(name, axis, aspect, columns, rows, labels, sheets)


def _sheet(volume: Volume, axis: int, indices: Sequence[int], columns: int) -> Volume:
    """Slices as they are looked at, row by row on one picture; spare tiles stay empty."""
    tiles = np.moveaxis(np.take(volume, indices, axis=axis), axis, 0).transpose(0, 2, 1)[:, ::-1]
    rows = math.ceil(len(indices) / columns)
    height, width = tiles.shape[1:]
    sheet = np.full((rows * columns, height, width), np.nan)
    sheet[: len(tiles)] = tiles
    return sheet.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def _webp(picture: Volume, look: Look) -> str:
    file = BytesIO()
    imsave(file, picture, cmap=look.colors, vmin=look.low, vmax=look.high, format="webp", pil_kwargs={"quality": QUALITY})
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _masked(volumes: Mapping[str, Volume], styles: Mapping[str, Look]) -> dict[str, Volume]:
    """No error is white, which would glare around the head: there, only errors that can be seen are drawn."""
    found = dict(volumes)
    if "error" in found:
        hidden = (found["truth"] <= VISIBLE * styles["truth"].high) & (np.abs(found["error"]) < styles["error"].high / 4)
        found["error"] = np.where(hidden, np.nan, found["error"])
    return found


def visible_box(volumes: Mapping[str, Volume], styles: Mapping[str, Look]) -> tuple[slice, ...]:
    """Around what is not background in any of the images, with a margin."""
    shown = [volume > VISIBLE * styles[name].high for name, volume in volumes.items() if name not in MAPS]
    visible = np.any(shown, axis=0)
    spans = []
    for axis, side in enumerate(visible.shape):
        found = np.flatnonzero(visible.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (int(found[0]), int(found[-1])) if len(found) else (0, side - 1)
        spans.append(slice(max(first - MARGIN, 0), min(last + MARGIN + 1, side)))
    return tuple(spans)


def plane_name(axis: int, axes: Sequence[str] = SPACE) -> str:
    """Of the plane that is sliced along an axis: the body's, or of a loop its other two axes, as x-t."""
    if tuple(axes) == SPACE:
        return next(name for name, place in PLANES.items() if place == axis)
    return "-".join(other for place, other in enumerate(axes) if place != axis)


def _label(axis: int, index: int, *, affine: npt.NDArray[np.float64], start: Sequence[int], sides: Sequence[int]) -> str:
    """The number counts from 0 as viewers do, in the RAS volume; the millimetres are those of the slice's centre."""
    voxel = [first + (side - 1) / 2 for first, side in zip(start, sides, strict=True)]
    voxel[axis] = start[axis] + index
    place = float((affine @ [*voxel, 1.0])[axis])
    return f"voxel {start[axis] + index}, {'xyz'[axis]} = {place:+.0f} mm"
