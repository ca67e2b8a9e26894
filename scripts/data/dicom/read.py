# SPDX-License-Identifier: Apache-2.0
"""A DICOM series as a volume."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from ...errors import BadInput
from .decoder import Decoder
from .headers import value_of
from .series import DicomSeries
from .stream import opened, with_syntax
from .told import silent, without_values

Array = npt.NDArray[Any]

NEAR = 0.01  # of the range of the rest: padding this close below its minimum is background already


def read_series(series: DicomSeries) -> npt.NDArray[np.float32]:
    """(columns, rows, slices) of rescaled values; `affine_of` says where they lie.

    Slices are in the order of `series.files` or `series.frames`. All in MONOCHROME1 are inverted, the highest value becoming 0;
    padding (PixelPaddingValue) that is far from the rest becomes the minimum of the rest.
    Raises BadInput when the series has a problem or its pixels cannot be decoded.
    """
    if series.problem:
        raise BadInput(f"{series} {series.problem}")
    try:
        with silent():
            images, padding, inverted = zip(*_images(series), strict=True)
    except Exception as error:  # every decoder fails in its own way
        told = error.strerror if isinstance(error, OSError) else str(error)  # without the path, which may name the patient
        reason = without_values(((told or "").splitlines() or [""])[0])[:120]
        raise BadInput(f"{series} cannot be read ({type(error).__name__}: {reason}); export it again") from error
    voxels, padded = np.stack(images), np.stack(padding)
    if inverted[0]:
        voxels = voxels[~padded].max(initial=voxels.min()) - voxels
    _set_padding(voxels, padded)
    return np.ascontiguousarray(voxels.transpose(2, 1, 0), dtype=np.float32)


def _images(series: DicomSeries) -> Iterator[tuple[Array, Array, bool]]:
    """Of each slice: values (rows, columns), which of them are padding, whether high values are black."""
    with Decoder() as decoder:
        for file in series.files:
            with opened(Path(file)) as stream:
                dataset = with_syntax(pydicom.dcmread(stream))
                groups = [dataset.PerFrameFunctionalGroupsSequence[frame - 1] for frame in series.frames] or [dataset]
                black = dataset.PhotometricInterpretation == "MONOCHROME1"
                indices = [frame - 1 for frame in series.frames] or [0]
                for group, pixels in zip(groups, decoder.frames(stream, dataset, indices, raw=True), strict=True):
                    stored = _stored(dataset, pixels)
                    slope, intercept = (value_of(group, dataset, f"Rescale{word}") for word in ("Slope", "Intercept"))
                    values = stored * float(1 if slope in (None, "") else slope) + float(intercept or 0)
                    yield values, _is_padding(dataset, stored), black


def _stored(dataset: Any, pixels: Array) -> Array:
    """Without the bits above BitsStored, which hold overlays, and below the lowest one."""
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    values = pixels.astype(np.int64)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        values >>= max(int(dataset.get("HighBit", bits - 1)) + 1 - bits, 0)
    values &= (1 << bits) - 1
    if dataset.PixelRepresentation == 1:
        values -= (values >> (bits - 1)) << bits
    return values


def _is_padding(dataset: Any, stored: Array) -> Array:
    ends = [dataset.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = [_signed(dataset, int(end)) for end in ends if isinstance(end, int)]
    if not isinstance(ends[0], int):
        return np.zeros(stored.shape, dtype=bool)
    return (stored >= min(known)) & (stored <= max(known))


def _signed(dataset: Any, value: int) -> int:
    """As the pixels are, whatever type the tag was written with."""
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    value &= (1 << int(dataset.BitsAllocated)) - 1
    if dataset.PixelRepresentation == 1 and value >> (int(dataset.BitsAllocated) - 1):
        return value - (1 << int(dataset.BitsAllocated))
    return value & ((1 << bits) - 1) if dataset.PixelRepresentation == 0 else value


def _set_padding(voxels: Array, padded: Array) -> None:
    """Give padding the minimum of the rest, unless it lies just below that: then it is background as it is."""
    if not padded.any() or padded.all():
        return
    rest = voxels[~padded]
    low, high = rest.min(), rest.max()
    far = (voxels[padded] < low - NEAR * (high - low)) | (voxels[padded] > low)
    voxels[padded] = np.where(far, low, voxels[padded])
