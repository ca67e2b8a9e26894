# SPDX-License-Identifier: Apache-2.0
"""A DICOM series as a volume."""

import warnings
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import torch
from monai.data.meta_tensor import MetaTensor

from ...errors import BadInput
from .series import DicomSeries
from .slices import LPS_TO_RAS, affine_of

Array = npt.NDArray[np.floating]

FRAME_OF_REFERENCE = "2.25.1"  # where anonymisation removed it; highdicom reads nothing without one
RESCALED: dict[str, Any] = {"apply_real_world_transform": False, "dtype": np.float64}  # slope and intercept, no window
TOLERANCES: dict[str, Any] = {"atol": 0.02, "orientation_tol": 1e-3}  # as `slices`, for positions of two decimals


def read_series(series: DicomSeries) -> MetaTensor:
    """(1, columns, rows, slices) float32 of rescaled values; affine 4x4 float64, voxels to mm in RAS.

    Slices are in the order of `series.files` or `series.frames`. Raises BadInput when the series has a problem or its
    pixels cannot be decoded.
    """
    if series.problem:
        raise BadInput(f"{series} {series.problem}")
    try:
        with warnings.catch_warnings():  # on values that break the standard, of tags that nobody asks for
            warnings.simplefilter("ignore")
            voxels, affine = _enhanced(series) if series.enhanced else _classic(series)
    except Exception as error:  # every decoder fails in its own way
        told = error.strerror if isinstance(error, OSError) else str(error)  # without the path, which may name the patient
        reason = ((told or "").splitlines() or [""])[0][:120]
        raise BadInput(f"{series} cannot be read ({type(error).__name__}: {reason}); export it again") from error
    contiguous = np.ascontiguousarray(voxels, dtype=np.float32)
    return MetaTensor(torch.from_numpy(contiguous)[None], affine=torch.from_numpy(LPS_TO_RAS @ affine))


def _classic(series: DicomSeries) -> tuple[Array, Array]:
    """Voxels (columns, rows, slices) and their affine in LPS."""
    datasets = [pydicom.dcmread(file) for file in series.files]
    for dataset in datasets:
        dataset.setdefault("FrameOfReferenceUID", FRAME_OF_REFERENCE)
    volume = hd.get_volume_from_series(datasets, **RESCALED, **TOLERANCES).permute_spatial_axes([2, 1, 0])
    if np.linalg.det(volume.affine[:3, :3]) < 0:  # highdicom counts slices against their normal
        volume = volume.flip_spatial(2)
    return volume.array, volume.affine


def _enhanced(series: DicomSeries) -> tuple[Array, Array]:
    dataset = pydicom.dcmread(series.files[0])
    dataset.setdefault("FrameOfReferenceUID", FRAME_OF_REFERENCE)
    if "SharedFunctionalGroupsSequence" not in dataset:  # some scanners leave it out when nothing is shared
        dataset.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    frames = hd.Image.from_dataset(dataset, copy=False).get_frames(list(series.frames), **RESCALED)
    return frames.transpose(2, 1, 0), LPS_TO_RAS @ affine_of(series)
