# SPDX-License-Identifier: Apache-2.0
"""Pictures of a result."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..files import printable, whole
from ..measurement.planes import PLANES
from ..measurement.task import SPACE
from .slices import Volume, plane_name

SIGNED = {"error"}
WIDTH, MARGIN = 3.0, 3  # inches of a column, and voxels around the head
TALLEST = 100.0  # inches of a figure, of a volume that is far longer than wide
CLOSE_UP_WIDTH, SIDE, BAR = 3.6, 60.0, 20.0  # inches of a column, mm of a side of what is enlarged, and of the scale's bar
CLOSE_UP_AT = (
    0.3,
    0.3,
)  # its middle, as shares of the head from its left and its back: cortex, wherever a result is good or bad
QUALITY = 80  # of WebP
MAPS = {"uncertainty": "magma", "interval": "magma", "error": "RdBu_r"}


def planes_figure(
    volumes: Mapping[str, Volume], path: Path, title: str = "", *, spacing: Sequence[float] = (1.0, 1.0, 1.0),
    axes: Sequence[str] = SPACE, own: Collection[str] = (),
) -> None:  # fmt: skip
    """Three planes (rows) of several volumes (columns) as a PNG or, by the name's ending, a WebP.

    volumes: name -> (H, W, D) in RAS, cut to the head; what a name says after a line break stands below it. spacing: of their
    voxels, in mm. The left of a picture is the patient's, as in the reports; of other axes than x y z, as of loops, there is no
    left, and planes are called by them. Images share the grey scale of "truth", or of the first volume, but for those of `own`,
    which span 0 to 1; "error", also "error of ...", is signed, blue where the result is too dark; "uncertainty" and "interval"
    start at zero. All errors share a scale, and so do all uncertainties.
    """
    of_body = tuple(axes) == SPACE
    ranked = [name for name in ("truth", *volumes) if name in volumes and name not in own]
    reference = volumes[next(iter(ranked or volumes))]
    box = _head(reference)
    volumes, reference = {name: volume[box] for name, volume in volumes.items()}, reference[box]
    extent = np.array(reference.shape) * spacing
    heights = [extent[1 if row == 2 else 2] for row in range(len(PLANES))]
    widest = max(extent[0], extent[1])
    centre = [int(np.mean(np.nonzero(reference.max(axis=tuple({0, 1, 2} - {axis})) > 0))) for axis in range(3)]
    size = (WIDTH * len(volumes), min(WIDTH * sum(heights) / widest + 1.2, TALLEST))
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    grid = figure.subplots(len(PLANES), len(volumes), squeeze=False, height_ratios=heights)
    for column, (name, volume) in enumerate(volumes.items()):
        kind = _kind(name)
        alike = [other for key, other in volumes.items() if _kind(key) == kind]
        low, high = (0.0, 1.0) if name in own else _limits(kind, alike, reference)
        for row in range(len(PLANES)):
            panel = grid[row, column]
            slice_ = np.take(volume, centre[row], axis=row).T
            if kind in SIGNED:  # no error is white, which would glare around the head
                slice_ = np.ma.masked_where(np.take(reference, centre[row], axis=row).T <= 0, slice_)
            across, up = (side for axis, side in enumerate(spacing) if axis != row)
            shown = panel.imshow(
                slice_, origin="lower", cmap=MAPS.get(kind, "gray"), vmin=low, vmax=high, aspect=up / across
            )  # fmt: skip
            panel.set_axis_off()
            if column == 0:
                word = panel.text(0.02, 0.97, plane_name(row, axes), color="w", fontsize=9, va="top", transform=panel.transAxes)
                word.set_bbox(None if of_body else {"color": "k", "pad": 1})  # a loop's pictures have no dark corners
                for x, side in ((0.01, "L"), (0.95, "R")) if row > 0 and of_body else ():
                    panel.text(x, 0.02, side, color="w", fontsize=9, transform=panel.transAxes)
        grid[0, column].set_title(name, color="w", fontsize=11)
        if kind in MAPS:
            bar = figure.colorbar(shown, ax=grid[-1, column], orientation="horizontal", shrink=0.8)
            bar.ax.tick_params(colors="w", labelsize=7)
            bar.set_label("share of the range", color="w", fontsize=8)
    figure.suptitle(f"{printable(title)}\n", color="w", fontsize=10)
    with whole(path) as part:
        figure.savefig(part, dpi=110, pil_kwargs={"quality": QUALITY})


def close_up_figure(volumes: Mapping[str, Volume], path: Path, title: str = "", *, spacing: Sequence[float]) -> None:
    """The middle axial slice of several volumes (columns), and below it 60 mm of it enlarged, the same place in every head.

    volumes, spacing: as in `planes_figure`, images alone. path: of a PNG or, far smaller, a WebP.
    """
    reference = volumes.get("truth", next(iter(volumes.values())))
    box = _head(reference)
    middle = int(np.mean(np.nonzero(reference[box].max(axis=(0, 1)) > 0)))
    slices = {name: volume[box][..., middle].T for name, volume in volumes.items()}
    low, high = _limits("", [], reference)
    height, width = next(iter(slices.values())).shape
    mm = width * spacing[0], height * spacing[1]
    corner = [min(max(share * side - SIDE / 2, 0), max(side - SIDE, 0)) for share, side in zip(CLOSE_UP_AT, mm, strict=True)]
    ends = [min(start + SIDE, side) for start, side in zip(corner, mm, strict=True)]
    heights = [mm[1] / mm[0], (ends[1] - corner[1]) / (ends[0] - corner[0])]
    size = (CLOSE_UP_WIDTH * len(slices), CLOSE_UP_WIDTH * sum(heights) + 0.9)
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    grid = figure.subplots(2, len(slices), squeeze=False, height_ratios=heights)
    for (overview, part), (name, slice_) in zip(grid.T, slices.items(), strict=True):
        for axes in (overview, part):
            axes.imshow(slice_, origin="lower", cmap="gray", vmin=low, vmax=high, extent=(0, mm[0], 0, mm[1]))
            axes.set_axis_off()
        overview.set_title(name, color="w", fontsize=13)
        overview.plot(*_frame(corner, ends), color="#e0a030", linewidth=1)
        for x, side in ((0.02, "L"), (0.94, "R")):
            overview.text(x, 0.02, side, color="w", fontsize=12, transform=overview.transAxes)
        part.set(xlim=(corner[0], ends[0]), ylim=(corner[1], ends[1]))
        part.plot((corner[0] + 2, corner[0] + 2 + BAR), (corner[1] + 2,) * 2, color="w", linewidth=3)
        part.text(corner[0] + 2, corner[1] + 3.5, f"{BAR:.0f} mm", color="w", fontsize=12)
    figure.suptitle(f"{printable(title)}\n", color="w", fontsize=11)
    with whole(path) as file:
        figure.savefig(file, dpi=110, pil_kwargs={"quality": QUALITY})


def _frame(corner: Sequence[float], ends: Sequence[float]) -> tuple[list[float], list[float]]:
    """x and y of a rectangle's outline."""
    (left, bottom), (right, top) = corner, ends
    return [left, right, right, left, left], [bottom, bottom, top, top, bottom]


def _kind(name: str) -> str:
    """What a volume is: the first word of its name."""
    return name.split()[0]


def _limits(kind: str, volumes: Sequence[Volume], reference: Volume) -> tuple[float, float]:
    inside = reference > 0 if (reference > 0).any() else np.ones_like(reference, dtype=bool)
    if kind not in MAPS:
        high = float(np.quantile(reference[inside], 0.999))
        return max(float(reference.min()), -abs(high)), high  # a single dark voxel does not set the scale either
    bound = max(float(np.quantile(np.abs(volume[inside]), 0.99)) for volume in volumes)
    return (-bound if kind in SIGNED else 0.0), bound


def _head(reference: Volume) -> tuple[slice, ...]:
    """The box of what is above background, with some around."""
    inside = reference > reference.min()
    spans = []
    for axis in range(3):
        at = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        spans.append(slice(max(int(at[0]) - MARGIN, 0), int(at[-1]) + MARGIN + 1) if at.size else slice(None))
    return tuple(spans)
