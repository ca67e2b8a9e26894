# SPDX-License-Identifier: Apache-2.0
"""What a derived image takes from its sources. Nothing else is read from them, so nothing else can be passed on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from ...errors import BadInput
from .headers import UIDS, complete
from .stream import opened, with_syntax
from .told import silent

# Whose image it is and of which study; without a value they are there, but empty. Ages, weights, institutions, operators,
# histories and procedure steps are not taken.
PATIENT_AND_STUDY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
                     "StudyID", "AccessionNumber", "ReferringPhysicianName", "PatientPosition",
                     "PositionReferenceIndicator")  # fmt: skip
# Taken where they have a value: that the patient was made anonymous and how must not get lost, nor that pixels are lossy.
IF_THERE = ("IssuerOfPatientID", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod",
            "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified", "FrameOfReferenceUID",
            "BodyPartExamined", "LossyImageCompression", "LossyImageCompressionRatio",
            "LossyImageCompressionMethod")  # fmt: skip
# Of the items of a sequence, which are all codes.
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
REFERENCE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
# Told of the scanner among the contributing equipment.
DESCRIPTION = ("Manufacturer", "ManufacturerModelName")
# What stands in for identifiers that were removed is made of.
IDENTITY = (*UIDS, "SOPClassUID", "Modality", "PatientID", "PatientName", "StudyDate", "StudyTime", "StudyID", "SeriesNumber",
            "SeriesDescription")  # fmt: skip
SEXES = ("M", "F", "O")
# Where the thickness of slices stands; of the groups of enhanced images no other value is looked at.
THICKNESS = ("SliceThickness", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


class Source(NamedTuple):
    """What is known of the images behind a result.

    subject: a dataset of patient, study, frame of reference and body part; first: of the first image, the `DESCRIPTION`;
    images: of every image, the `REFERENCE`; thickness: of the slices in mm, None where the first does not say.
    """

    subject: Dataset
    first: Dataset
    images: Sequence[Dataset]
    thickness: float | None


@silent()
def read_source(files: Sequence[str]) -> Source:
    """Read the whitelist from the first file, and from all files which images they are. Pixels are not read."""
    first = _read(files[0], (*PATIENT_AND_STUDY, *IF_THERE, *REFERENCE, *DESCRIPTION, *THICKNESS))
    subject = Dataset()
    for keyword in (*PATIENT_AND_STUDY, *IF_THERE):
        value = first.get(keyword)
        if isinstance(value, Items):
            value = [code for item in value if (code := _code(item))] if keyword.endswith("Sequence") else None
        if value or keyword in PATIENT_AND_STUDY:
            setattr(subject, keyword, value)
    if subject.PatientSex not in SEXES:
        subject.PatientSex = ""
    if "FrameOfReferenceUID" not in subject:  # one for all results of this source, so that they overlay
        subject.FrameOfReferenceUID = generate_uid(entropy_srcs=[first.StudyInstanceUID, first.SeriesInstanceUID])
    thickness = next(
        (element.value for element in first.iterall() if element.keyword == "SliceThickness" and element.value), None
    )
    return Source(subject, first, [_read(file, REFERENCE) for file in dict.fromkeys(files)], thickness)


def _code(item: Dataset) -> Dataset | None:
    """What is on the whitelist of an item, which may hold anything, sequences too; None unless it is a whole code."""
    code = Dataset()
    for keyword in CODE:
        if not isinstance(value := item.get(keyword), str) or not value:
            return None
        setattr(code, keyword, value)
    return code


def _read(file: str, keywords: Sequence[str]) -> Dataset:
    asked: list[Any] = [*keywords, *IDENTITY]
    try:
        with opened(Path(file)) as stream:
            dataset = with_syntax(dcmread(stream, stop_before_pixels=True, specific_tags=asked))
        complete(Path(file), dataset)
        return dataset
    except OSError as error:
        # without its path, which may name the patient
        fact = f"a file of the series cannot be read again ({error.strerror or 'it is no DICOM now'})"
        raise BadInput(f"{fact}; keep it until the run ends") from error
