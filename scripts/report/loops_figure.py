# SPDX-License-Identifier: Apache-2.0
"""The picture of `python -m scripts cine_table`: a frame, and one line of it over time, of every method side by side."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

Loop = npt.NDArray[np.floating]
BRIGHT = 99.5  # percentile of the truth that is white: a vessel must not darken the rest
REPEATED = 3  # pixels a frame
SIDE = 112  # pixels around the line


def busiest_line(truth: Loop) -> int:
    """The y of a loop (X, Y, T) whose pixels change most over time, all in all."""
    return int(truth.std(axis=-1).mean(axis=0).argmax())


def loops_figure(loops: Mapping[str, Loop], truth: Loop) -> Figure:
    """Loops (X, Y, T) by name, the truth among them or not: above the first frame, below x-t, the same line of each."""
    y, x = busiest_line(truth), _busiest_column(truth)
    rows, columns = (_around(place, side) for place, side in ((x, truth.shape[0]), (y, truth.shape[1])))
    low, high = float(truth.min()), float(np.percentile(truth, BRIGHT))
    figure = Figure(figsize=(1.55 * len(loops), 2.9), layout="constrained")
    grid = figure.subplots(2, len(loops), squeeze=False, height_ratios=(1, 20 * REPEATED / SIDE))
    for (above, below), (name, loop) in zip(grid.T, loops.items(), strict=True):
        shown = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "nearest"}
        above.imshow(loop[rows, columns, 0].T, **shown)
        above.axhline(y - columns.start, color="C1", linewidth=0.6)
        below.imshow(loop[rows, y].T.repeat(REPEATED, axis=0), **shown)
        above.set_title(name, fontsize=7)
        for axes in (above, below):
            axes.set_axis_off()
    return figure


def _busiest_column(truth: Loop) -> int:
    return int(truth.std(axis=-1).mean(axis=1).argmax())


def _around(place: int, side: int) -> slice:
    start = min(max(place - SIDE // 2, 0), max(side - SIDE, 0))
    return slice(start, start + SIDE)
