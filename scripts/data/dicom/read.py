# SPDX-License-Identifier: Apache-2.0
"""A DICOM series as a volume."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from ...errors import BadInput
from .decoder import Decoder
from .headers import high_bit, value_of
from .series import DicomSeries
from .stream import opened, with_syntax
from .told import silent, without_values

Array = npt.NDArray[Any]

NEAR = 0.01  # of the range of the rest: padding this close below its minimum is background already
AROUND = 0.1  # of the faces of a volume: padding amid the values of tissue is some only if it has so much of them


def read_series(series: DicomSeries) -> npt.NDArray[np.float32]:
    """(columns, rows, slices) of rescaled values; `affine_of` says where they lie.

    Slices are in the order of `series.files` or `series.frames`. All in MONOCHROME1 are inverted, the highest value becoming 0;
    padding (PixelPaddingValue) that is far from the rest, or amid its values but around it, becomes the minimum of the rest.
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


def checksum_of_pixels(file: Path) -> str:
    """Of what an image file stores, however it is compressed; "" where that cannot be decoded."""
    checksum = hashlib.sha256()
    try:
        with silent(), Decoder() as decoder, opened(file) as stream:
            dataset = with_syntax(pydicom.dcmread(stream))
            for pixels in decoder.frames(stream, dataset, raw=True):
                checksum.update(_stored(dataset, pixels).tobytes())
    except Exception:  # every decoder fails in its own way
        return ""
    return checksum.hexdigest()


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
        values >>= max(high_bit(dataset, bits) + 1 - bits, 0)
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
    """Give padding the minimum of the rest, unless it lies just below that: then it is background as it is.

    voxels, padded: (slices, rows, columns). A value amid the rest is one of tissue, too, and stays where nothing is around.
    """
    if not padded.any() or padded.all():
        return
    rest = voxels[~padded]
    low, high = rest.min(), rest.max()
    far = padded & ((voxels < low - NEAR * (high - low)) | (voxels > high))
    amid = padded & (voxels > low) & (voxels <= high)
    voxels[far | _around(amid)] = low


def _around(amid: Array) -> Array:
    """Those that hang together with some in the faces of the volume, if they are a good part of these; else none."""
    if _faces(amid).mean() < AROUND:
        return np.zeros_like(amid)
    from scipy import ndimage  # takes a moment to import

    regions, _ = ndimage.label(amid)
    outer = np.unique(_faces(regions))
    return np.isin(regions, outer[outer > 0])


def _faces(volume: Array) -> Array:
    return np.concatenate([np.moveaxis(volume, axis, 0)[end].ravel() for axis in range(3) for end in (0, -1)])
