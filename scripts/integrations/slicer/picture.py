# SPDX-License-Identifier: Apache-2.0
"""A picture of what `load_result` shows, for the documentation, drawn without Slicer from the same choices."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .load_result import MAGMA, ORIENTATIONS, Layer, find_layers, shown_range

VIEW_COLOURS = {"Axial": "#F34A33", "Sagittal": "#EDD54C", "Coronal": "#6EB04B"}  # the bars above Slicer's views


def picture(layers: Sequence[Layer], path: Path) -> None:
    """A row for each layer, a column for each orientation, with Slicer's colours and sides: right on the left, front left."""
    figure = Figure(figsize=(8, 2.7 * len(layers)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(layers), len(ORIENTATIONS), squeeze=False)
    for row, layer in zip(grid, layers, strict=True):
        image: Any = nib.as_closest_canonical(nib.load(layer.path))
        voxels = image.get_fdata(dtype=np.float32)
        low, high = shown_range(layer, voxels)
        colours = "magma" if layer.colours == MAGMA else "gray"
        for axes, orientation in zip(row, ORIENTATIONS, strict=True):
            plane, extent = _plane(voxels, image.header.get_zooms(), orientation)
            shown = axes.imshow(plane, cmap=colours, vmin=low, vmax=high, interpolation="nearest", extent=extent)
            axes.set_facecolor("black")
            axes.set_xticks([]), axes.set_yticks([])
            axes.spines[["left", "right", "bottom"]].set_visible(False)
            axes.spines["top"].set(color=VIEW_COLOURS[orientation], linewidth=4)
        row[0].set_title(layer.name, color="w", fontsize=9, loc="left")
        if layer.colours == MAGMA:
            figure.colorbar(shown, ax=row[-1], shrink=0.8).ax.tick_params(colors="w", labelsize=7)
    figure.savefig(path, dpi=100)


def _plane(voxels: np.ndarray, spacing: Sequence[float], orientation: str) -> tuple[np.ndarray, tuple[float, ...]]:
    """The middle plane of a RAS volume as (rows from the top, columns), and its extent in mm."""
    axis = {"Sagittal": 0, "Coronal": 1, "Axial": 2}[orientation]
    plane = np.take(voxels, voxels.shape[axis] // 2, axis=axis)[::-1, ::-1].T
    width, height = (side * spacing[i] for side, i in zip(plane.shape[::-1], [i for i in range(3) if i != axis], strict=True))
    return plane, (0, width, 0, height)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: folder of a case, input, picture. What is not there is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.integrations.slicer.picture", description=__doc__)
    parser.add_argument("folder", type=Path, help="OUTPUT_DIR/CASE")
    parser.add_argument("image", type=Path, help="the case's input")
    parser.add_argument("picture", type=Path, help="PNG to write")
    options = parser.parse_args(arguments)
    try:
        layers = find_layers(options.folder, options.image)
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")
    picture(layers, options.picture)


if __name__ == "__main__":
    main()
