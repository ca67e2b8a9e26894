# SPDX-License-Identifier: Apache-2.0
"""What every derived object says, whatever its kind: whose it is, what made it, from what."""

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from ...bundle import bundle_version
from ..provenance import NOT_FOR_DIAGNOSIS, Provenance
from .whitelist import Source

LONGEST_TEXT = 1024  # characters of a DICOM short text
MANUFACTURER = "Score-Fusion bundle"
FIRST_NUMBER, NUMBERS = 10**8, 9 * 10**8  # of series: behind all scans, and so many that no two results share one


def tags(**values: Any) -> Dataset:
    """A dataset of these keywords."""
    return update(Dataset(), values)


def update(dataset: Dataset, values: Mapping[str, Any]) -> Dataset:
    """Set keywords; returns the dataset."""
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def code(concept: Any) -> CodedConcept:
    """A concept of `codes` as an item of a code sequence."""
    return CodedConcept.from_code(concept)


def header(source: Source, provenance: Provenance, sop_class: UID, *, series: Mapping[str, Any]) -> Dataset:
    """A new object without image: new SOP instance and series, in the source's study and frame of reference.

    series: what tells this series, as Modality; it may replace anything that is said here.
    """
    now = datetime.now()
    date, time = f"{now:%Y%m%d}", f"{now:%H%M%S.%f}"
    dataset, uid = Dataset(), generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.update(source.subject)
    update(dataset, {
        "SpecificCharacterSet": "ISO_IR 192",  # UTF-8 holds whatever the source's holds
        "SOPClassUID": sop_class,
        "InstanceNumber": 1,
        "InstanceCreationDate": date, "InstanceCreationTime": time,
        "ContentDate": date, "ContentTime": time,
        "SeriesDate": date, "SeriesTime": time,
        "SeriesInstanceUID": uid,
        "SeriesNumber": FIRST_NUMBER + int(uid.rpartition(".")[2]) % NUMBERS,
        "SeriesDescription": provenance.title,
        **_software(provenance),
        "ContributingEquipmentSequence": _equipment(source, provenance, now),
        "SyntheticData": "YES",
        "BurnedInAnnotation": "NO",
        "RecognizableVisualFeatures": "YES",  # a face, unless the brain was cut out of it, which nobody told us
        "BodyPartExamined": source.subject.get("BodyPartExamined", "BRAIN"),
        "LossyImageCompression": source.subject.get("LossyImageCompression", "00"),
        "ImageComments": f"{provenance.warning}AI, synthetic, {NOT_FOR_DIAGNOSIS}",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PresentationLUTShape": "IDENTITY",
        "ReferencedSeriesSequence": by_series(source),
    })  # fmt: skip
    update(dataset, series)
    return renew(dataset)


def renew(dataset: Dataset) -> Dataset:
    """Give an object a new SOP instance UID; returns it."""
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def derivation(source: Source, provenance: Provenance, *, finer: bool) -> dict[str, Any]:
    """How the pixels came about; finer: they lie on another grid than the source's."""
    how = [codes.DCM.ArtificialIntelligence, *([codes.DCM.SpatialResampling] if finer else [])]
    purpose = code(codes.DCM.SourceImageForImageProcessingOperation)
    images = [update(_reference(image), {"PurposeOfReferenceCodeSequence": [purpose]}) for image in source.images]
    return {
        "DerivationDescription": provenance.sentence[:LONGEST_TEXT],
        "DerivationCodeSequence": [code(concept) for concept in how],
        "SourceImageSequence": images,
    }


def _reference(image: Dataset) -> Dataset:
    return tags(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)


def by_series(source: Source, images: str = "ReferencedInstanceSequence") -> list[Dataset]:
    """The sources once more, an item a series, with its images under the keyword that the module at hand has for them."""

    def series(image: Dataset) -> str:
        return str(image.SeriesInstanceUID)

    grouped = groupby(sorted(source.images, key=series), key=series)
    return [tags(SeriesInstanceUID=uid, **{images: [_reference(image) for image in those]}) for uid, those in grouped]


def _equipment(source: Source, provenance: Provenance, now: datetime) -> list[Dataset]:
    """The scanner, if it has a name, and this software."""
    items = []
    if source.first.get("Manufacturer"):
        scanner = {key: source.first[key].value for key in ("Manufacturer", "ManufacturerModelName") if source.first.get(key)}
        items.append(tags(**scanner, PurposeOfReferenceCodeSequence=[code(codes.DCM.AcquisitionEquipment)]))
    ours = tags(
        PurposeOfReferenceCodeSequence=[code(codes.DCM.ProcessingEquipment)],
        **_software(provenance),
        ContributionDateTime=f"{now:%Y%m%d%H%M%S.%f}",
        ContributionDescription=provenance.sentence[:LONGEST_TEXT],
    )
    return [*items, ours]


def _software(provenance: Provenance) -> dict[str, str]:
    return {
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": provenance.model,
        "DeviceSerialNumber": provenance.sha256,
        "SoftwareVersions": bundle_version(),
    }
