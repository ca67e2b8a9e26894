# SPDX-License-Identifier: Apache-2.0
"""One DICOM file's header: safe to open, whole, and of an MR image; or a line that says why not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    generate_uid,
)

from ...errors import BadInput, one_line
from .series import DicomSeries
from .slices import Slice
from .stream import opened, pixel_bytes, with_syntax
from .told import MODALITIES, silent, without_values

CLASSIC = frozenset({MRImageStorage})
ENHANCED = frozenset({EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})
END_OF_FRAGMENTS = b"\xfe\xff\xdd\xe0"
LARGEST = 4 << 30  # bytes of pixels in a file; more is a header that lies
LOOKED_AT = 1 << 15  # pixels amid a file, of which bits above those stored are looked for
BITS_ABOVE = "has bits above BitsStored, which are cut off: unless they are an overlay, what was brightest becomes dark"
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

# What image types call the components of a complex image and of a Dixon separation.
COMPONENTS = {
    **dict.fromkeys(("M", "MAGNITUDE", "M_FFE", "M_SE", "M_IR"), "magnitude"),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "PHASE_MAP"), "phase"),
    **dict.fromkeys(("R", "REAL"), "real"),
    **dict.fromkeys(("I", "IMAGINARY"), "imaginary"),
    **dict.fromkeys(("W", "WATER"), "water"),
    **dict.fromkeys(("F", "FAT"), "fat"),
    **dict.fromkeys(("IP", "IN_PHASE", "IN PHASE"), "in phase"),
    **dict.fromkeys(("OP", "OPP_PHASE", "OUT_PHASE", "OUT PHASE", "OPPOSED PHASE"), "opposed phase"),
}
GE_COMPONENT = (0x0043, 0x102F)  # "Raw Data Type"
GE_COMPONENTS = ("magnitude", "phase", "real", "imaginary")
PHILIPS_SCALE = (0x2005, 0x100E)  # "Scale Slope": values of two slices compare only after division by it


class Header(NamedTuple):
    """What is kept of a file.

    series: without its geometry; damage: why the file's whole series cannot be trusted; aside: it is no MR image and so no
    slice of its series; number: of the image in its series.
    """

    sop_uid: str
    series: DicomSeries
    slices: list[Slice]
    damage: str
    aside: bool
    number: int | None


def read_header(path: Path) -> Header | None:
    """The header of a DICOM file, None for an index of other files (DICOMDIR).

    Raises BadInput when it is not DICOM, is something else as well, or ends within the header.
    """
    try:
        with opened(path) as file:
            return _read(path, file)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be opened ({error.strerror}); copy it again") from error
    except Exception as error:  # a file that is cut short fails in many ways
        raise BadInput(f"{path}: its header cannot be read ({without_values(one_line(error))}); copy it again") from error


def _read(path: Path, file: BinaryIO) -> Header | None:
    with silent():
        dataset = with_syntax(pydicom.dcmread(file, stop_before_pixels=True))
        end, size = file.tell(), file.seek(0, 2)
        kind = _sop_class(dataset)
        if kind == MediaStorageDirectoryStorage:
            return None
        if end == size and any(known.startswith(kind) for known in CLASSIC | ENHANCED):
            raise BadInput(f"{path}: is cut short, it ends before its pixels; copy it again")
        doubts = _doubts(dataset, complete(path, dataset))
        aside = _not_an_image(dataset)
        series = _series(path, dataset, aside or _problem(dataset), doubts)
        number = _said(dataset.get, "InstanceNumber", _whole)
        slices = [] if series.problem else list(_slices(path, dataset))
        file.seek(end)
        damage = "" if series.problem else _damage(path, dataset, file, size - end)
        file.seek(end)
        if not series.problem and _has_bits_above(dataset, file):
            series = replace(series, doubts=(*series.doubts, BITS_ABOVE))
        return Header(str(dataset.SOPInstanceUID), series, slices, damage, bool(aside), number)


def _sop_class(dataset: Any) -> UID:
    """What kind of object it is; an MR image where an anonymiser left that out."""
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return UID(kind or (MRImageStorage if dataset.get("Modality") == "MR" else ""))


def complete(path: Path, dataset: Any) -> list[str]:
    """Put in stand-ins for identifiers that anonymisers removed, the same whenever they are read; which ones."""
    lacking = [keyword for keyword in UIDS if not dataset.get(keyword)]
    known = [str(dataset.get(key) or "") for key in ("PatientID", "PatientName", "StudyDate", "StudyTime", "StudyID")]
    series = [*known, str(path.parent), *(str(dataset.get(key) or "") for key in ("SeriesNumber", "SeriesDescription"))]
    for keyword, sources in zip(UIDS, (known, series, [*series, path.name]), strict=True):
        if keyword in lacking:
            setattr(dataset, keyword, generate_uid(entropy_srcs=["score-fusion", *sources]))
    dataset.SOPClassUID = _sop_class(dataset)
    return lacking


def _doubts(dataset: Any, lacking: Sequence[str]) -> tuple[str, ...]:
    doubts = [f"lacks {' and '.join(lacking)}; patient, date, folder and number stand in for it"] if lacking else []
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        doubts.append("is MONOCHROME1, black where values are high: it is inverted, its highest value becomes 0")
    if dataset.get("ModalityLUTSequence"):
        doubts.append("has a ModalityLUTSequence, which MR images have not: its values are those before that table")
    return tuple(doubts)


def _damage(path: Path, dataset: Any, file: BinaryIO, remaining: int) -> str:
    """Whether the pixels end before they should; `file` stands before their element."""
    groups, frames = len(list(_groups(dataset))), int(dataset.get("NumberOfFrames") or 1)
    if dataset.SOPClassUID in ENHANCED and groups != frames:
        return f"needs {path.name}, which holds {frames} frames but describes {groups}; export it again"
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        whole = END_OF_FRAGMENTS in file.read()
    else:
        whole = remaining - _before_pixels(dataset) >= pixel_bytes(dataset)
    return "" if whole else f"needs {path.name}, which is cut short; copy it again"


def _before_pixels(dataset: Any) -> int:
    """Bytes of an element's tag, type and length."""
    return 8 if dataset.file_meta.TransferSyntaxUID.is_implicit_VR else 12


def _has_bits_above(dataset: Any, file: BinaryIO) -> bool:
    """Whether values amid uncompressed pixels go beyond those stored, as overlays do, of which the header would tell.

    `file` stands before the element of the pixels.
    """
    syntax, bits = dataset.file_meta.TransferSyntaxUID, int(dataset.get("BitsAllocated") or 0)
    if syntax.is_encapsulated or bits not in (8, 16, 32):
        return False
    stored_bits = int(dataset.get("BitsStored") or bits)
    spare = bits - 1 - high_bit(dataset, stored_bits)
    overlays = any(_said(dataset.get, (group, 0x0102), lambda bit: bit.value) for group in range(0x6000, 0x6020, 2))
    if overlays or not 0 < spare < bits:
        return False
    count = pixel_bytes(dataset) * 8 // bits
    middle = max(count - LOOKED_AT, 0) // 2
    file.seek(_before_pixels(dataset) + middle * bits // 8, 1)
    held = file.read(min(count, LOOKED_AT) * bits // 8)
    stored = np.frombuffer(held, f"{'<' if syntax.is_little_endian else '>'}u{bits // 8}", len(held) * 8 // bits)
    above = stored >> (bits - spare)
    extended = dataset.get("PixelRepresentation") == 1
    return bool(((above != 0) & ~(extended & (above == (1 << spare) - 1))).any())


def high_bit(dataset: Any, stored: int) -> int:
    """The highest of the bits that are `stored`, which some headers leave empty."""
    said = _said(dataset.get, "HighBit", _whole)
    return stored - 1 if said is None else int(said)


# What kind of series a header belongs to


def _series(path: Path, dataset: Any, problem: str, doubts: tuple[str, ...]) -> DicomSeries:
    first = next(_groups(dataset), dataset)
    agent, agents = dataset.get("ContrastBolusAgent"), dataset.get("ContrastBolusAgentSequence")
    return DicomSeries(
        files=(str(path),),
        uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        patient_id=str(dataset.get("PatientID") or dataset.get("PatientName") or "").strip(),
        number=_said(dataset.get, "SeriesNumber", _whole),
        description=str(dataset.get("SeriesDescription") or dataset.get("ProtocolName") or "").strip(),
        modality=str(dataset.get("Modality") or "no modality"),
        body_part=str(dataset.get("BodyPartExamined") or ""),
        enhanced=dataset.SOPClassUID in ENHANCED,
        study_date=str(dataset.get("StudyDate") or ""),
        image_type=tuple(str(word) for word in _several(dataset.get("ImageType"))),
        contrast_agent=str(agent or (agents[0].get("CodeMeaning") or "yes" if agents else "")).strip(),
        scanning_sequence=tuple(str(word) for word in _several(dataset.get("ScanningSequence"))),
        repetition_time=_number(value_of(first, dataset, "RepetitionTime")),
        problem=problem,
        doubts=doubts,
    )


def _not_an_image(dataset: Any) -> str:
    """Why such an object is no slice of any MR series, even if it says that it is of one."""
    kind, modality = dataset.SOPClassUID, dataset.get("Modality") or "MR"
    if "Secondary Capture" in kind.name:
        return "is a secondary capture, a picture of a screen; send the scanner's own series"
    if modality != "MR":
        return f"is {f'{modality}, ' * (modality in MODALITIES)}not MR; leave it out"
    if kind not in CLASSIC | ENHANCED:
        private = "of a private kind" if kind.name == str(kind) else kind.name.removesuffix(" Storage")
        return f"is {private}, not an MR image; leave it out"
    if dataset.get("SamplesPerPixel", 1) != 1:
        return "is in colour; send the scanner's own series"
    return ""


def _problem(dataset: Any) -> str:
    """Why no series of such images can be used."""
    if dataset.get("SyntheticData") == "YES":
        return "is synthetic already; give the scan it was made from"
    if dataset.get("BurnedInAnnotation") == "YES":
        return "has text burned into its pixels (BurnedInAnnotation YES); send the scanner's own series"
    if "MOSAIC" in _several(dataset.get("ImageType")):
        return "is a mosaic of slices; convert it to NIfTI with dcm2niix"
    groups = list(_groups(dataset))
    places = [value_of(group, dataset, "ImagePositionPatient") for group in groups]
    if not places or not all(places) or not value_of(groups[0], dataset, "ImageOrientationPatient"):
        return "does not say where its slices lie (ImagePositionPatient, ImageOrientationPatient); export it again"
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        for group in groups:
            if (numbers := value_of(group, dataset, keyword)) and not _are_numbers(numbers, count):
                return f"has no {count} numbers in {keyword}; export it again"
    lacking = [keyword for keyword in ("Rows", "Columns", "BitsAllocated") if not dataset.get(keyword)]
    lacking += [] if value_of(groups[0], dataset, "PixelSpacing") else ["PixelSpacing"]
    if lacking:
        return f"lacks {' and '.join(lacking)}; export it again with all its tags"
    if pixel_bytes(dataset) > LARGEST:
        return f"claims {dataset.Columns}x{dataset.Rows} pixels, {pixel_bytes(dataset) / 1e9:.0f} GB in a file; export it again"
    axes = np.array(value_of(groups[0], dataset, "ImageOrientationPatient"), dtype=float).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 0.05:
        return "has rows and columns that are not at right angles (ImageOrientationPatient); export it again"
    return ""


def _are_numbers(values: Any, count: int) -> bool:
    try:
        return len(values) == count and bool(np.isfinite([float(value) for value in values]).all())
    except (TypeError, ValueError):
        return False


# Slices, which are files or frames


def _slices(path: Path, dataset: Any) -> Iterator[Slice]:
    for frame, group in enumerate(_groups(dataset), start=1):

        def value(keyword: str, group: Any = group) -> Any:
            return value_of(group, dataset, keyword)

        enhanced = dataset.SOPClassUID in ENHANCED
        kind = tuple(str(word) for word in _several(value("FrameType") or dataset.get("ImageType")))
        yield Slice(
            file=str(path),
            frame=frame if enhanced else 0,
            position=tuple(float(x) for x in value("ImagePositionPatient")),
            orientation=tuple(float(x) for x in value("ImageOrientationPatient")),
            pixel_spacing=tuple(float(x) for x in value("PixelSpacing")),
            size=(int(dataset.Columns), int(dataset.Rows)),
            traits=_traits(value, dataset, kind),
            kind=kind,
            contrast=str(value("AcquisitionContrast") or ""),
            number=_said(value, "InStackPositionNumber" if enhanced else "InstanceNumber", _whole),
            thickness=_said(value, "SliceThickness", _number) or 0.0,
            between=abs(_said(value, "SpacingBetweenSlices", _number) or 0.0),
            images=0 if enhanced else _said(dataset.get, "ImagesInAcquisition", _whole) or 0,
            scaling=_scaling(value, dataset),
            inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
        )


def _traits(value: Any, dataset: Any, kind: tuple[str, ...]) -> Mapping[str, Any]:
    words = [str(value("ComplexImageComponent") or ""), *kind[2:]]
    raw = dataset.get(GE_COMPONENT)
    if raw is not None and isinstance(raw.value, int) and 0 <= raw.value < len(GE_COMPONENTS):
        words.append(GE_COMPONENTS[raw.value].upper())
    components = {COMPONENTS[word] for word in words if word in COMPONENTS}
    echo = _number(value("EffectiveEchoTime") or dataset.get("EchoTime"))
    return {
        "component": " and ".join(sorted(components - {"magnitude"})) or "magnitude",
        "echo": None if echo is None else float(f"{echo:.4g}"),  # of one echo it may differ in the last digits
        "inversion": _number(value("InversionTime") or value("InversionTimes")),
        "b-value": _number(value("DiffusionBValue")),
        "time": value("TemporalPositionIndex") or dataset.get("TemporalPositionIdentifier"),
        "trigger": _number(value("NominalCardiacTriggerDelayTime") or dataset.get("TriggerTime")),
        "kind": "/".join(kind[2:]),
        "acquisition": value("FrameAcquisitionNumber") or dataset.get("AcquisitionNumber"),
    }


def _scaling(value: Any, dataset: Any) -> tuple[Any, ...]:
    """Units of the values, and factors to other units than those of slope and intercept."""
    mapping = next(iter(dataset.get("RealWorldValueMappingSequence") or ()), pydicom.Dataset())
    units = value("MeasurementUnitsCodeSequence") or mapping.get("MeasurementUnitsCodeSequence")
    real, slope = (_said(value, keyword, _number) for keyword in ("RealWorldValueSlope", "RescaleSlope"))
    real = real or _said(mapping.get, "RealWorldValueSlope", _number)
    factor = _said(dataset.get, PHILIPS_SCALE, lambda scale: None if isinstance(scale.value, bytes) else _number(scale.value))
    return (
        value("RescaleType"),
        units[0].get("CodeValue") if units else None,
        f"{real / (slope or 1):.4g}" if real else None,
        None if factor is None else f"{factor:.4g}",
    )


def _groups(dataset: Any) -> Iterator[Any]:
    """Per-frame functional groups of an enhanced image, the dataset itself of a classic one."""
    return iter(dataset.get("PerFrameFunctionalGroupsSequence") or ()) if dataset.SOPClassUID in ENHANCED else iter([dataset])


def value_of(group: Any, dataset: Any, keyword: str) -> Any:
    """A value of a frame: its own, else the one shared by all frames, else the image's."""
    for holder in (group, *(dataset.get("SharedFunctionalGroupsSequence") or ())):
        if holder is dataset:
            break
        for element in holder:
            if element.VR == "SQ" and not element.tag.is_private and element.value and keyword in element.value[0]:
                return element.value[0][keyword].value
    return dataset.get(keyword)


def _said(get: Callable[[Any], Any], tag: Any, read: Callable[[Any], Any]) -> Any:
    """What a tag says of which no image depends; None where it is empty or makes no sense."""
    try:
        return read(get(tag))
    except Exception:  # as it fails to be decoded or read
        return None


def _several(value: Any) -> list[Any]:
    return [] if value is None or value == "" else [value] if isinstance(value, str) else list(value)


def _number(value: Any) -> float | None:
    value = next(iter(_several(value)), None) if isinstance(value, Sequence) else value
    return None if value is None or value == "" else float(value)


def _whole(value: Any) -> int | None:
    return None if value in (None, "") else int(value)
