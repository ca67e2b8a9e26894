# SPDX-License-Identifier: Apache-2.0
"""What a derived image takes from its sources. Nothing else is read from them, so nothing else can be passed on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from ...errors import BadInput

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
REFERENCE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
# Told of the scanner among the contributing equipment; the series number decides the new ones.
DESCRIPTION = ("Manufacturer", "ManufacturerModelName", "SeriesNumber")
SEXES = ("M", "F", "O")


class Source(NamedTuple):
    """What is known of the images behind a result.

    subject: a dataset of patient, study, frame of reference and body part; first: of the first image, the `DESCRIPTION`;
    images: of every image, the `REFERENCE`.
    """

    subject: Dataset
    first: Dataset
    images: Sequence[Dataset]


def read_source(files: Sequence[str]) -> Source:
    """Read the whitelist from the first file, and from all files which images they are. Pixels are not read."""
    first = _read(files[0], (*PATIENT_AND_STUDY, *IF_THERE, *REFERENCE, *DESCRIPTION))
    subject = Dataset()
    for keyword in (*PATIENT_AND_STUDY, *IF_THERE):
        value = first.get(keyword)
        if value not in (None, "") or keyword in PATIENT_AND_STUDY:
            setattr(subject, keyword, value)
    if subject.PatientSex not in SEXES:
        subject.PatientSex = ""
    if "FrameOfReferenceUID" not in subject:  # one for all results of this source, so that they overlay
        subject.FrameOfReferenceUID = generate_uid(entropy_srcs=[first.StudyInstanceUID, first.SeriesInstanceUID])
    subject.remove_private_tags()  # of the sequence
    return Source(subject, first, [_read(file, REFERENCE) for file in dict.fromkeys(files)])


def _read(file: str, keywords: Sequence[str]) -> Dataset:
    asked: list[Any] = list(keywords)
    try:
        return dcmread(file, stop_before_pixels=True, specific_tags=asked)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read again ({error.strerror or error}); keep it until the run ends") from error
