# SPDX-License-Identifier: Apache-2.0
"""Restored films as DICOM: ultrasound as ultrasound, others as Multi-frame Secondary Capture, which claims no acquisition."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, uid

from ..dicom.whitelist import read_source
from ..dicom.write_header import derivation, header, tags, update
from ..dicom.write_pixels import decimal
from ..provenance import Provenance
from .cine import Cine
from .colour import recolour, to_bytes
from .film import COLOURS, ULTRASOUND, header_of, pictures

FRAME_TIME = 0x00181063
# What a calibrated region of an ultrasound image says, all of it numbers; in pixels, and lengths of a pixel.
REGION = ("RegionSpatialFormat", "RegionDataType", "RegionFlags", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection")
PIXELS = {"X": ("RegionLocationMinX0", "RegionLocationMaxX1"), "Y": ("RegionLocationMinY0", "RegionLocationMaxY1")}
IDENTITY = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}  # which captures have to say
IN_SPACE = ("PatientPosition", "PositionReferenceIndicator", "FrameOfReferenceUID")  # a film has no place there


def write_film(cine: Cine, like: Cine, folder: Path, origin: tuple[Path, Provenance]) -> None:
    """Write `folder/0001.dcm`: the source in the luminance of the result; origin: file, and what made the result."""
    file, provenance = origin
    before, source = header_of(file), read_source([str(file)])
    colour = before.PhotometricInterpretation in COLOURS
    bits = 8 if colour else int(before.BitsStored)
    series = {
        "Modality": before.get("Modality") or "OT", "ImageType": ["DERIVED", "SECONDARY"],
        "PatientOrientation": None, "Laterality": None,
        "BurnedInAnnotation": before.get("BurnedInAnnotation") or "YES",  # to be on the safe side
    }  # fmt: skip
    dataset = header(source, provenance, _kind(before, colour=colour, bits=bits), series=series)
    for keyword in (*IN_SPACE, "BodyPartExamined", "RecognizableVisualFeatures"):
        if keyword not in source.subject or keyword in IN_SPACE:
            dataset.pop(keyword, None)
    update(dataset, derivation(source, provenance, finer=cine.voxels.shape[:2] != like.voxels.shape[:2]))
    update(dataset, _pixel_tags(cine, bits, colour=colour))
    if colour:
        del dataset.PresentationLUTShape
    if before.SOPClassUID in ULTRASOUND:
        _add_regions(dataset, before, cine)
    else:
        update(dataset, {"ConversionType": "WSD", **({} if colour else IDENTITY)})
    dataset.PixelData = _pixels(cine, like, file, bits, colour=colour)
    folder.mkdir()
    dataset.save_as(folder / "0001.dcm", enforce_file_format=True)


def _kind(before: Any, *, colour: bool, bits: int) -> uid.UID:
    if before.SOPClassUID in ULTRASOUND:
        return uid.UltrasoundMultiFrameImageStorage
    if colour:
        return uid.MultiFrameTrueColorSecondaryCaptureImageStorage
    byte, word = (
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    )
    return byte if bits <= 8 else word


def _pixel_tags(cine: Cine, bits: int, *, colour: bool) -> dict[str, Any]:
    """Size, kind and times of the frames."""
    step = 1000 * float(cine.frame_times[-1] - cine.frame_times[0]) / (len(cine.frame_times) - 1)
    depth = {"BitsAllocated": 8 if bits <= 8 else 16, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0}
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    return {
        "Columns": cine.voxels.shape[0], "Rows": cine.voxels.shape[1], "NumberOfFrames": cine.voxels.shape[3],
        "FrameTime": decimal(step), "FrameIncrementPointer": FRAME_TIME, **depth, **(colours if colour else {}),
    }  # fmt: skip


def _pixels(cine: Cine, like: Cine, file: Path, bits: int, *, colour: bool) -> bytes:
    """Of all frames, rounded; a byte more where their number is odd."""
    lights = [cine.voxels[:, :, 0, k].T for k in range(cine.voxels.shape[3])]
    if colour:
        positions = np.interp(cine.frame_times, like.frame_times, np.arange(len(like.frame_times)))
        frames = [picture.tobytes() for picture in recolour(lights, pictures(file), [float(one) for one in positions])]
    elif bits <= 8:
        frames = [to_bytes(light).clip(0, (1 << bits) - 1).tobytes() for light in lights]
    else:
        frames = [np.rint(light).clip(0, (1 << bits) - 1).astype("<u2").tobytes() for light in lights]
    data = b"".join(frames)
    return data + b"\0" * (len(data) % 2)


def _add_regions(dataset: Dataset, before: Any, cine: Cine) -> None:
    """Calibrated regions, in pixels of the result: lengths can be measured in it as in the source."""
    finer = {"X": cine.voxels.shape[0] / int(before.Columns), "Y": cine.voxels.shape[1] / int(before.Rows)}
    regions = []
    for region in before.get("SequenceOfUltrasoundRegions") or ():
        if not all(isinstance(region.get(key), int) for key in (*REGION, *PIXELS["X"], *PIXELS["Y"])):
            continue
        item = tags(**{key: region[key].value for key in REGION})
        for axis, (low, high) in PIXELS.items():
            edges = round(region[low].value * finer[axis]), round((region[high].value + 1) * finer[axis]) - 1
            update(item, {low: edges[0], high: edges[1]})
            update(item, {f"PhysicalDelta{axis}": float(region.get(f"PhysicalDelta{axis}") or 0) / finer[axis]})
        regions.append(item)
    if regions:
        dataset.SequenceOfUltrasoundRegions = regions
