# SPDX-License-Identifier: Apache-2.0
"""Results as DICOM objects in the study of their sources; arrays go in, so that PyTorch need not be there."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import Volume
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from ..provenance import Provenance
from .whitelist import Source, read_source
from .write_frames import QUANTITIES, enhanced_mr, parametric_map
from .write_header import derivation, header, renew, update
from .write_pixels import SIXTEEN_BITS, Grid, Placed, Stored, as_slices, decimal, to_integers, window

TOLERANCE_MM = 1e-3
# Nothing was acquired: the parameters of a sequence, which a reader must find, are empty, and the sequence is "research".
CLASSIC_MR = {
    "Modality": "MR", "ImageType": ["DERIVED", "SECONDARY", "OTHER"], "ScanningSequence": "RM", "SequenceVariant": "NONE",
    "ScanOptions": None, "MRAcquisitionType": None, "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
}  # fmt: skip


def write_series(volume: Placed, folder: Path, files: Sequence[str], provenance: Provenance) -> None:
    """Write a result as one derived MR series, `folder/0001.dcm` on; the folder is made.

    files: the images it was made from, of which the first decides whether the series is classic (a file a slice) or enhanced
    (one file).
    """
    source = read_source(files)
    grid = grid_of(volume, source)
    if source.first.SOPClassUID == MRImageStorage:
        save_all(_classic_mr(grid, source, provenance), folder)
    else:
        save_all([enhanced_mr(grid, source, provenance)], folder)


def write_parametric_map(
    volume: Placed, path: Path, files: Sequence[str], provenance: Provenance, quantity: str = "uncertainty"
) -> None:  # fmt: skip
    """Write one of `QUANTITIES` as one Parametric Map; the rest as for `write_series`."""
    source = read_source(files)
    dataset = parametric_map(grid_of(volume, source), source, provenance, QUANTITIES[quantity])
    dataset.save_as(path, enforce_file_format=True)


def grid_of(volume: Placed, source: Source) -> Grid:
    """Where a result lies. Slices are as thick as the source's unless they lie at other distances."""
    slices, before = as_slices(volume.voxels, volume.affine), volume.source_affine
    same = abs(slices.spacing_between_slices - np.linalg.norm(before[:3, 2])) <= TOLERANCE_MM
    thickness = source.thickness if same and source.thickness else slices.spacing_between_slices
    return Grid(slices, float(thickness), not np.allclose(volume.affine, before, rtol=0, atol=TOLERANCE_MM))


def _classic_mr(grid: Grid, source: Source, provenance: Provenance) -> Iterator[Dataset]:
    """MR Images, one a slice. Each names all sources: every slice was made from the whole volume."""
    dataset = header(source, provenance, MRImageStorage, series=CLASSIC_MR)
    return mr_images(update(dataset, derivation(source, provenance, finer=grid.finer)), grid.slices, grid.thickness)


def mr_images(dataset: Dataset, slices: Volume, thickness: float) -> Iterator[Dataset]:
    """Fill one MR Image with a slice after the other, each time under a new SOP instance UID."""
    stored = to_integers(slices.array)
    update(dataset, {**image_tags(slices, thickness), **pixel_tags(stored), **window(slices.array).tags})
    for number, (pixels, place) in enumerate(zip(stored.integers, slices.get_plane_positions(), strict=True), start=1):
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = place[0].ImagePositionPatient
        dataset.PixelData = pixels.tobytes()
        yield renew(dataset)


def image_tags(slices: Volume, thickness: float) -> dict[str, Any]:
    """What classic images say of the stack that they lie in; thickness: mm."""
    return {
        "Rows": slices.spatial_shape[1], "Columns": slices.spatial_shape[2],
        "PixelSpacing": [decimal(spacing) for spacing in slices.pixel_spacing],
        "SliceThickness": decimal(thickness),
        "SpacingBetweenSlices": decimal(slices.spacing_between_slices),
        "ImageOrientationPatient": [decimal(cosine) for cosine in slices.direction_cosines],
    }  # fmt: skip


def pixel_tags(stored: Stored) -> dict[str, Any]:
    """How classic images say what their integers mean."""
    rescale = {"RescaleSlope": decimal(stored.slope), "RescaleIntercept": decimal(stored.intercept), "RescaleType": "US"}
    return {**SIXTEEN_BITS, **rescale}


def save_all(objects: Iterable[Dataset], folder: Path) -> None:
    """Write `folder/0001.dcm` on; the folder is made."""
    folder.mkdir()
    for number, dataset in enumerate(objects, start=1):
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
