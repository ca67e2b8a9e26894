# SPDX-License-Identifier: Apache-2.0
"""Derived objects of many frames in one file: Enhanced MR, and the Parametric Map of an uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from highdicom.pm import RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, ParametricMapStorage, generate_uid

from ..provenance import Provenance
from .whitelist import Source
from .write_header import by_series, code, derivation, header, tags, update
from .write_pixels import SIXTEEN_BITS, Grid, Window, decimal, to_integers, window

# PRIMARY: what multi-frame MR must say here (PS3.3 C.8.16.1.2), though classic MR of the same kind is SECONDARY.
ENHANCED_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
CONTRASTS = {"t1": "T1", "t1ce": "T1", "t2": "T2", "flair": "FLUID_ATTENUATED", "pd": "PROTON_DENSITY"}
KIND = {"PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME", "VolumeBasedCalculationTechnique": "NONE"}


class Quantity(NamedTuple):
    """What a Parametric Map holds, in the units of the series beside it: words for people, labels and a code for programs."""

    name: str
    description: str
    label: str
    kind: str
    code: Any


QUANTITIES = {
    "uncertainty": Quantity(
        "uncertainty", "Standard deviation over {samples} samples", "SD", "STD_DEVIATION", codes.SCT.StandardDeviation),
    "interval": Quantity(
        "80% interval", "Half width of the 80% interval", "HALF80", "OTHER",
        codes.SCT.RangeOfMeasurementUncertainty),
}  # fmt: skip
STACK_ID, IN_STACK_POSITION, FRAME_CONTENT = 0x00209056, 0x00209057, 0x00209111


def enhanced_mr(grid: Grid, source: Source, provenance: Provenance) -> Dataset:
    """An Enhanced MR Image with one frame a slice."""
    contrast = CONTRASTS.get(provenance.task.target, "UNKNOWN")
    kind = {**KIND, "ComplexImageComponent": "MAGNITUDE", "AcquisitionContrast": contrast}
    images = by_series(source, "ReferencedSOPSequence")
    evidence = tags(StudyInstanceUID=source.subject.StudyInstanceUID, ReferencedSeriesSequence=images)
    series = {
        **kind,
        "Modality": "MR",
        "ImageType": ENHANCED_TYPE,
        "ContentQualification": "RESEARCH",
        "ApplicableSafetyStandardAgency": "NONE",  # it has to be there; nothing was acquired
        "SourceImageEvidenceSequence": [evidence],
    }
    dataset = header(source, provenance, EnhancedMRImageStorage, series=series)
    del dataset.ReferencedSeriesSequence  # it says what SourceImageEvidenceSequence says
    stored = to_integers(grid.slices.array)
    _add_frames(dataset, grid, {
        "MRImageFrameTypeSequence": [tags(FrameType=ENHANCED_TYPE, **kind)],
        "PixelValueTransformationSequence": [rescale_of(stored.slope, stored.intercept)],
        "FrameVOILUTSequence": [tags(**window(grid.slices.array).tags)],
        "DerivationImageSequence": [tags(**derivation(source, provenance, finer=grid.finer))],
    })  # fmt: skip
    update(dataset, SIXTEEN_BITS)
    dataset.PixelData = stored.integers.tobytes()
    return dataset


def parametric_map(grid: Grid, source: Source, provenance: Provenance, quantity: Quantity) -> Dataset:
    """A quantity as a Parametric Map, float32, in the units of the series beside it."""
    kind = ["DERIVED", "PRIMARY", "VOLUME", quantity.kind]
    description = quantity.description.format(samples=provenance.samples)
    series = {
        "Modality": "OT",
        "ImageType": kind,
        "SeriesDescription": f"AI {quantity.name}, not for diagnosis",
        "ContentQualification": "RESEARCH",
        "ContentLabel": "UNCERTAINTY",
        "ContentDescription": description,
        "ContentCreatorName": "Score-Fusion^",
        "PixelPresentation": "MONOCHROME",
    }
    dataset = header(source, provenance, ParametricMapStorage, series=series)
    values = np.ascontiguousarray(grid.slices.array, dtype="<f4")
    low, high = float(values.min()), float(values.max())
    meaning = RealWorldValueMapping(
        lut_label=quantity.label,
        lut_explanation=f"{description}, units of the derived series",
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        quantity_definition=quantity.code,
    )
    _add_frames(dataset, grid, {
        "ParametricMapFrameTypeSequence": [tags(FrameType=kind)],
        "PixelValueTransformationSequence": [rescale_of(1, 0)],
        "FrameVOILUTSequence": [tags(**Window(low, high).tags)],
        "RealWorldValueMappingSequence": [meaning],
        "DerivationImageSequence": [tags(**derivation(source, provenance, finer=grid.finer))],
    })  # fmt: skip
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = values.tobytes()
    return dataset


def _add_frames(dataset: Dataset, grid: Grid, shared: Mapping[str, Any]) -> None:
    """Give an object its frames, all but the pixels: one a slice, in one stack; `shared` holds for all of them."""
    organization, slices = generate_uid(), grid.slices
    measures = slices.get_pixel_measures()
    measures[0].SliceThickness = decimal(grid.thickness)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = slices.spatial_shape
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionOrganizationSequence = [tags(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = dimensions_of(organization, (STACK_ID, IN_STACK_POSITION))
    dataset.AcquisitionContextSequence = []
    anatomy = tags(FrameLaterality="U", AnatomicRegionSequence=[code(codes.SCT.Brain)])
    dataset.SharedFunctionalGroupsSequence = [tags(
        PixelMeasuresSequence=measures,
        PlaneOrientationSequence=slices.get_plane_orientation(),
        FrameAnatomySequence=[anatomy],
        **shared,
    )]  # fmt: skip
    dataset.PerFrameFunctionalGroupsSequence = [
        tags(PlanePositionSequence=position, FrameContentSequence=[
            tags(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number])])
        for number, position in enumerate(slices.get_plane_positions(), start=1)
    ]  # fmt: skip


def dimensions_of(organization: str, pointers: Sequence[int]) -> list[Dataset]:
    """What the values of a frame's dimension index count, by the tags in its frame content; organization: a UID."""
    shared = {"DimensionOrganizationUID": organization, "FunctionalGroupPointer": FRAME_CONTENT}
    return [tags(**shared, DimensionIndexPointer=pointer) for pointer in pointers]


def rescale_of(slope: float, intercept: float) -> Dataset:
    """How integers become values."""
    return tags(RescaleSlope=decimal(slope), RescaleIntercept=decimal(intercept), RescaleType="US")
