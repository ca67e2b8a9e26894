# SPDX-License-Identifier: Apache-2.0
"""One DICOM file's header: safe to open, whole, and of an MR image; or a line that says why not."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pydicom
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from ...errors import BadInput
from .series import DicomSeries
from .slices import Slice

# The 128 bytes before "DICM" are free, so one file can be an image to one program and code to another (PS3.10, 7.1).
DISGUISES = {
    b"MZ": "a Windows program",
    b"\x7fELF": "a Linux program",
    b"#!": "a script",
    b"\xfe\xed\xfa": "a macOS program",
    b"\xcf\xfa\xed\xfe": "a macOS program",
    b"\xca\xfe\xba\xbe": "a macOS or Java program",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"PK\3\4": "a zip archive",
    b"%PDF": "a PDF document",
}
CLASSIC = frozenset({MRImageStorage})
ENHANCED = frozenset({EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})
END_OF_FRAGMENTS = b"\xfe\xff\xdd\xe0"

LOCALIZER = re.compile(r"(?<![a-z])(loc|localizer|localiser|scout|survey|aahead|3.?p(l|lane))(?![a-z])")
MAPS = frozenset(
    {
        *("ADC", "EADC", "FA", "TRACE", "TRACEW", "T1 MAP", "T2 MAP", "T2_STAR MAP", "B0 MAP", "FIELD_MAP", "MIP", "MINIP"),
        *("PROJECTION IMAGE", "SUBTRACT", "SUBTRACTION", "CBF", "CBV", "MTT", "TTP", "RCBF", "RCBV", "TMAX"),
        *("P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"),
    }
)
MAP_WORD = re.compile(r"(?<![a-z])(e?adc|fa|tracew?|mip|minip|r?cb[fv]|mtt|ttp|tmax|phase|sub(tract\w*)?|\w*map)(?![a-z])")
HEAD = re.compile(r"HEAD|BRAIN|SKULL|NEURO|CRAN|CEREB|FACE|ORBIT|PITUIT|SELLA|TEMPORAL|WHOLE ?BODY", re.IGNORECASE)


class Header(NamedTuple):
    """What is kept of a file. series: without its geometry; damage: why the file's whole series cannot be trusted."""

    sop_uid: str
    series: DicomSeries
    slices: list[Slice]
    damage: str


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, by its content or its name."""
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    if not path.is_file():  # a pipe, a link to nowhere
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True  # it might be a slice: `read_header` names it


def read_header(path: Path) -> Header | None:
    """The header of a DICOM file, None for an index of other files (DICOMDIR).

    Raises BadInput when it is not DICOM, is something else as well, or ends within the header.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be opened ({error.strerror}); copy it again or delete it") from error
    except Exception as error:  # a file that is cut short fails in many ways
        raise BadInput(f"{path}: its header cannot be read ({_fact(error)}); copy it again or delete it") from error


def _read(path: Path, file: BinaryIO) -> Header | None:
    start = file.read(132)
    if start[128:] != b"DICM":
        raise BadInput(f"{path}: is not DICOM ({path.stat().st_size} bytes, no DICM at byte 128); copy it again or delete it")
    disguise = next((what for magic, what in DISGUISES.items() if start.startswith(magic)), None)
    if disguise is not None:
        raise BadInput(f"{path}: begins like {disguise}, as malware in DICOM does; ask its sender, or delete it")
    file.seek(0)
    with warnings.catch_warnings():  # on values that break the standard, of tags that nobody asks for
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        if dataset.file_meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage:
            return None
        kind = dataset.SOPClassUID
        if file.tell() == path.stat().st_size and (kind in CLASSIC | ENHANCED or kind.name == str(kind)):
            raise BadInput(f"{path}: is cut short, it ends before its pixels; copy it again or delete it")
        series = _series(path, dataset)
        if series.problem:
            return Header(str(dataset.SOPInstanceUID), series, [], "")
        return Header(str(dataset.SOPInstanceUID), series, list(_slices(path, dataset)), _damage(path, dataset, file))


def _fact(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def _damage(path: Path, dataset: Any, file: BinaryIO) -> str:
    """Whether the pixels end before they should; `file` stands before their element."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return ""
    if syntax.is_encapsulated:
        whole = END_OF_FRAGMENTS in file.read()
    else:
        voxels = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
        element = 8 if syntax.is_implicit_VR else 12  # tag, type and length
        whole = path.stat().st_size - file.tell() - element >= voxels * dataset.BitsAllocated // 8
    return "" if whole else f"needs {path.name}, which is cut short; copy it again"


# What kind of series a header belongs to


def _series(path: Path, dataset: Any) -> DicomSeries:
    first = next(_groups(dataset), dataset)
    description = str(dataset.get("SeriesDescription") or dataset.get("ProtocolName") or "").strip()
    number, agent = dataset.get("SeriesNumber"), dataset.get("ContrastBolusAgent")
    agents = dataset.get("ContrastBolusAgentSequence")
    image_type = tuple(str(word) for word in _several(dataset.get("ImageType")))
    component = str(_find(first, dataset, "ComplexImageComponent") or "")
    return DicomSeries(
        files=(str(path),),
        uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        patient_id=str(dataset.get("PatientID") or dataset.get("PatientName") or "").strip(),
        number=None if number is None else int(number),
        description=description,
        modality=str(dataset.get("Modality") or "no modality"),
        enhanced=dataset.SOPClassUID in ENHANCED,
        study_date=str(dataset.get("StudyDate") or ""),
        image_type=image_type,
        contrast=str(_find(first, dataset, "AcquisitionContrast") or ""),
        contrast_agent=str(agent or (agents[0].get("CodeMeaning") or "yes" if agents else "")).strip(),
        scanning_sequence=tuple(str(word) for word in _several(dataset.get("ScanningSequence"))),
        echo_time=_number(_find(first, dataset, "EffectiveEchoTime") or dataset.get("EchoTime")),
        repetition_time=_number(_find(first, dataset, "RepetitionTime")),
        inversion_time=_number(_find(first, dataset, "InversionTime") or _find(first, dataset, "InversionTimes")),
        problem=_problem(dataset, image_type),
        doubt=_doubt(dataset, {*image_type, component}, description.lower()),
    )


def _problem(dataset: Any, image_type: tuple[str, ...]) -> str:
    """Why no series of such images can be used."""
    kind, modality = dataset.SOPClassUID, dataset.get("Modality")
    if kind == SecondaryCaptureImageStorage or "Secondary Capture" in kind.name:
        return "is a secondary capture, a picture of a screen; send the scanner's own series"
    if modality != "MR":
        return f"is {modality or 'of no modality'}, not MR; leave it out"
    if kind not in CLASSIC | ENHANCED:
        return f"is {kind.name.removesuffix(' Storage')}, not an MR image; leave it out"
    if dataset.get("SyntheticData") == "YES":
        return "is synthetic already; give the scan it was made from"
    if dataset.get("BurnedInAnnotation") == "YES":
        return "has text burned into its pixels (BurnedInAnnotation YES); send the scanner's own series"
    if dataset.get("SamplesPerPixel", 1) != 1:
        return "is in colour; send the scanner's own series"
    if "MOSAIC" in image_type:
        return "is a mosaic of slices; convert it to NIfTI with dcm2niix"
    places = [_find(group, dataset, "ImagePositionPatient") for group in _groups(dataset)]
    if not places or not all(places) or not _find(next(_groups(dataset)), dataset, "ImageOrientationPatient"):
        return "does not say where its slices lie (ImagePositionPatient, ImageOrientationPatient); export it again"
    return ""


def _doubt(dataset: Any, image_type: set[str], description: str) -> str:
    """Why such a series is used only when a rule of the user names it."""
    if "LOCALIZER" in image_type or LOCALIZER.search(description):
        return "is a localizer"
    maps = sorted(image_type & MAPS) or [match.group() for match in [MAP_WORD.search(description)] if match]
    if maps:
        return f"is a derived map or component ({maps[0]})"
    part = str(dataset.get("BodyPartExamined") or "")
    return f"is of {part}, not of the head" if part and not HEAD.search(part) else ""


# Slices, which are files or frames


def _slices(path: Path, dataset: Any) -> Iterator[Slice]:
    for frame, group in enumerate(_groups(dataset), start=1):
        kind = _several(_find(group, dataset, "FrameType") or dataset.get("ImageType"))
        yield Slice(
            file=str(path),
            frame=frame if dataset.SOPClassUID in ENHANCED else 0,
            position=tuple(float(x) for x in _find(group, dataset, "ImagePositionPatient")),
            orientation=tuple(float(x) for x in _find(group, dataset, "ImageOrientationPatient")),
            pixel_spacing=tuple(float(x) for x in _find(group, dataset, "PixelSpacing")),
            size=(int(dataset.Columns), int(dataset.Rows)),
            traits={
                "component": str(_find(group, dataset, "ComplexImageComponent") or "/".join(str(word) for word in kind[2:])),
                "echo": _number(_find(group, dataset, "EffectiveEchoTime") or dataset.get("EchoTime")),
                "inversion": _number(_find(group, dataset, "InversionTime")),
                "time": _find(group, dataset, "TemporalPositionIndex") or dataset.get("TemporalPositionIdentifier"),
                "acquisition": _find(group, dataset, "FrameAcquisitionNumber") or dataset.get("AcquisitionNumber"),
            },
        )


def _groups(dataset: Any) -> Iterator[Any]:
    """Per-frame functional groups of an enhanced image, the dataset itself of a classic one."""
    return iter(dataset.get("PerFrameFunctionalGroupsSequence") or ()) if dataset.SOPClassUID in ENHANCED else iter([dataset])


def _find(group: Any, dataset: Any, keyword: str) -> Any:
    """A value of a frame: its own, else the one shared by all frames, else the image's."""
    for holder in (group, *(dataset.get("SharedFunctionalGroupsSequence") or ())):
        if holder is dataset:
            break
        for element in holder:
            if element.VR == "SQ" and not element.tag.is_private and element.value and keyword in element.value[0]:
                return element.value[0][keyword].value
    return dataset.get(keyword)


def _several(value: Any) -> list[Any]:
    return [] if value is None or value == "" else [value] if isinstance(value, str) else list(value)


def _number(value: Any) -> float | None:
    value = value[0] if isinstance(value, list) and value else value
    return None if value in (None, "", []) else float(value)
