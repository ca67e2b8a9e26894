# SPDX-License-Identifier: Apache-2.0
"""Films in DICOM: many frames in one file without a place in space, as of ultrasound, fluoroscopy and endoscopy."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid

from ...errors import BadInput
from ..dicom.decoder import Decoder
from ..dicom.stream import opened, pixel_bytes, with_syntax
from ..dicom.told import silence_pydicom, silent, without_values
from .cine import Cine, Times, check_shape, check_times, check_voxels
from .colour import Picture, luminance

ULTRASOUND = frozenset({uid.UltrasoundMultiFrameImageStorage, uid.UID("1.2.840.10008.5.1.4.1.1.3")})
FILMS = ULTRASOUND | {
    uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage, uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
}  # fmt: skip
X_RAY = frozenset({uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage})
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
GREY = ("MONOCHROME1", "MONOCHROME2")
LARGEST = 4 << 30  # bytes of pixels; more is a header that lies
RATES = ("CineRate", "RecommendedDisplayFrameRate")  # frames a second


def is_film(path: Path) -> bool:
    """Whether a DICOM file holds several frames of a film."""
    with _readable(path), silent(), opened(path) as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=["SOPClassUID", "NumberOfFrames"])
        return header.get("SOPClassUID") in FILMS and int(header.get("NumberOfFrames") or 1) > 1


def read_film(path: Path, file: Path) -> Cine:
    """Of one file: (columns, rows, 1, frames), the luminance where it has colours, in stored values.

    Raises BadInput for what is not allowed to be in colour, cannot be decoded, or does not say how long a frame lasts.
    """
    dataset = header_of(file)
    with _readable(file):  # pydicom parses a value when it is asked for
        shape = int(dataset.Columns), int(dataset.Rows), 1, int(dataset.NumberOfFrames)
        check_shape(file.name, shape)
        times, doubts = _times(file.name, dataset, shape[3])
        check_times(file.name, times, clock=_rounding(dataset))
        if dataset.get("BurnedInAnnotation") != "NO":
            doubts.append("may have text burned into its pixels: it may name the patient, and is restored as if it were tissue")
    voxels = np.empty(shape, dtype=np.float32)
    for frame, picture in enumerate(pictures(file)):
        voxels[:, :, 0, frame] = luminance(picture).T
    doubts += check_voxels(file.name, voxels)
    return Cine(voxels, np.eye(4), times, False, path, tuple(f"{file.name} {line}" for line in doubts))


def header_of(file: Path) -> Any:
    """All but the pixels. Raises BadInput for a film that is not to be read."""
    silence_pydicom()
    with _readable(file), opened(file) as stream:
        dataset: Any = with_syntax(pydicom.dcmread(stream, stop_before_pixels=True))
        problem = _problem(dataset)
    if problem:
        raise BadInput(f"{file.name}: {problem}")
    return dataset


def pictures(file: Path) -> Iterator[Picture]:
    """Frames, one after the other: (rows, columns), or (rows, columns, 3) in red, green and blue."""
    count = 0
    with _readable(file), opened(file) as stream, Decoder() as decoder:
        dataset: Any = with_syntax(pydicom.dcmread(stream))
        bits = int(dataset.BitsStored)
        for picture in itertools.islice(decoder.frames(stream, dataset), int(dataset.NumberOfFrames)):
            if picture.shape[:2] != (dataset.Rows, dataset.Columns):
                raise ValueError("frames of another size than its header says")
            inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
            yield (1 << bits) - 1 - picture if inverted else picture
            count += 1
    if count != int(dataset.NumberOfFrames):
        raise BadInput(f"{file.name}: holds {count} frames of {dataset.NumberOfFrames}; copy it again")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What pydicom and its decoders raise, each in its own way, becomes a `BadInput` without values of the header."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        reason = without_values(((text or "").splitlines() or [""])[0])[:120]
        raise BadInput(f"{file.name}: cannot be read ({type(error).__name__}: {reason}); export it again") from error


def _problem(dataset: Any) -> str:
    colour, kind = str(dataset.get("PhotometricInterpretation")), dataset.get("SOPClassUID")
    if dataset.get("SyntheticData") == "YES":
        return "is synthetic already; give the film it was made from"
    if dataset.get("BurnedInAnnotation") == "YES":
        return "has text burned into its pixels (BurnedInAnnotation YES); send the film without it"
    if lacking := [key for key in ("Rows", "Columns", "BitsAllocated", "BitsStored") if not dataset.get(key)]:
        return f"lacks {' and '.join(lacking)}; export it again with all its tags"
    if colour not in (*COLOURS, *GREY):
        return f"has {'a palette' if 'PALETTE' in colour else 'unknown'} colours; export it as RGB"
    if colour in COLOURS and kind in X_RAY:
        return "is in colour, but X-rays are grey; send the scanner's own series"
    if colour in COLOURS and int(dataset.BitsAllocated) != 8:
        return f"has colours of {dataset.BitsAllocated} bits; export it as RGB of 8 bits"
    if int(dataset.BitsAllocated) not in (8, 16) or int(dataset.get("PixelRepresentation") or 0) != 0:
        return "has pixels that are not whole numbers of 8 or 16 bits from 0 on; export it again"
    if pixel_bytes(dataset) > LARGEST:
        return f"claims {pixel_bytes(dataset) / 1e9:.0f} GB of pixels; export it again"
    return ""


def _times(name: str, dataset: Any, frames: int) -> tuple[Times, list[str]]:
    """Of the frames, s from the first, and doubts about them."""
    try:
        steps = [float(step) for step in dataset.get("FrameTimeVector") or ()]
        if len(steps) == frames and "FrameTimeVector" in _pointed(dataset):
            return np.cumsum([0.0, *steps[1:]]) / 1000, []
        if step := float(dataset.get("FrameTime") or 0):
            return np.arange(frames) * step / 1000, []
        rate = next((float(dataset[key].value) for key in RATES if dataset.get(key)), 0.0)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: its frame times cannot be read (FrameTime); export it again") from error
    if rate <= 0:
        raise BadInput(
            f"{name}: does not say how long its frames last (FrameTime, CineRate); export it again with all its tags"
        )
    return np.arange(frames) / rate, [f"does not say when its frames were taken; taken as {rate:g} a second, as it is shown"]


def _pointed(dataset: Any) -> list[str]:
    """Keywords of what counts the frames; all where nothing says."""
    pointer = dataset.get("FrameIncrementPointer")
    tags = pointer if isinstance(pointer, list | pydicom.multival.MultiValue) else [pointer] if pointer else []
    return [pydicom.datadict.keyword_for_tag(tag) for tag in tags] or ["FrameTimeVector"]


def _rounding(dataset: Any) -> float:
    """s; a vector in whole milliseconds is rounded to them."""
    steps = dataset.get("FrameTimeVector") or ()
    return 1e-3 if steps and all(float(step).is_integer() for step in steps) else 0.0
