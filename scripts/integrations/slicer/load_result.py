# SPDX-License-Identifier: Apache-2.0
"""Show a result in 3D Slicer: `Slicer --python-script load_result.py OUT/CASE [INPUT]` (docs/slicer.md).

A row each for input, result and uncertainty; axial, sagittal and coronal. Runs in Slicer's own Python, from 3.9 on, which has
none of this bundle.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ORIENTATIONS = ("Axial", "Sagittal", "Coronal")
VIEWS = (("Red", "Yellow", "Green"), ("Slice4", "Slice5", "Slice6"), ("Slice7", "Slice8", "Slice9"))
GREY, MAGMA = "vtkMRMLColorTableNodeGrey", "vtkMRMLColorTableNodeFileMagma.txt"


class Layer(NamedTuple):
    """One row: a file, its name in Slicer and its colour table."""

    name: str
    path: Path
    colours: str


def find_layers(folder: Path, image: Path | None = None) -> list[Layer]:
    """Input (if given), result and uncertainty (if there) of a case's folder.

    Raises FileNotFoundError when there is no result in it, or no such input.
    """
    results = sorted(folder.glob("*_pred.nii.gz"))
    if not results:
        raise FileNotFoundError(f"{folder}: holds no result; give the folder of one case, OUTPUT_DIR/CASE")
    case = results[0].name.removesuffix("_pred.nii.gz")
    layers = [Layer(f"{case} AI result, not for diagnosis", results[0], GREY)]
    uncertainty = folder / f"{case}_uncertainty.nii.gz"
    if uncertainty.is_file():
        layers.append(Layer(f"{case} uncertainty", uncertainty, MAGMA))
    if image is None:
        return layers
    if not image.is_file():
        raise FileNotFoundError(f"{image}: there is no such file; give the case's input, or leave it out")
    return [Layer(f"{case} input", image, GREY), *layers]


def shown_range(layer: Layer, voxels: Any) -> tuple[float, float]:
    """Lowest and highest value shown: from the background to nearly the brightest; of an uncertainty from zero."""
    faces = np.concatenate([np.take(voxels, (0, -1), axis).ravel() for axis in range(3)])
    background = float(np.median(faces))  # the minimum would be the overshoot of an edge
    content = voxels[voxels > background]
    highest = float(np.percentile(content, 99 if layer.colours == MAGMA else 99.9)) if content.size else background
    return (0.0 if layer.colours == MAGMA else background), max(highest, background + 1e-6)


def show(layers: Sequence[Layer]) -> None:
    """Load the layers into Slicer, one row of three linked views each, voxels as they are."""
    import slicer

    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeByThreeSliceView)
    for layer, views in zip(layers, VIEWS):  # noqa: B905 (Python 3.10)
        options = {"name": layer.name, "show": False, "colorNodeID": layer.colours}
        node = slicer.util.loadVolume(str(layer.path), options)
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*shown_range(layer, slicer.util.arrayFromVolume(node)))
        display.SetInterpolate(False)
        for view, orientation in zip(views, ORIENTATIONS):  # noqa: B905
            logic = manager.sliceWidget(view).sliceLogic()
            logic.GetSliceNode().SetOrientation(orientation)
            logic.GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
            logic.GetSliceCompositeNode().SetLinkedControl(True)
    slicer.util.resetSliceViews()


def main(arguments: Sequence[str]) -> None:
    """Show the case that the command line names, or a dialog that says what is wrong with it."""
    import slicer

    if not 1 <= len(arguments) <= 2:
        slicer.util.errorDisplay("Give the folder of a case, OUTPUT_DIR/CASE, and perhaps its input")
        return
    try:
        show(find_layers(*map(Path, arguments)))
    except FileNotFoundError as error:
        slicer.util.errorDisplay(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
