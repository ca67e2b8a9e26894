# SPDX-License-Identifier: Apache-2.0
"""Derived objects of many frames in one file: Enhanced MR, and the Parametric Map of an uncertainty."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from highdicom import Volume
from highdicom.pm import RealWorldValueMapping
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, ParametricMapStorage, generate_uid

from ..provenance import Provenance
from .whitelist import Source
from .write_header import by_series, code, derivation, header, tags, update
from .write_pixels import SIXTEEN_BITS, Window, decimal, to_integers, window

# PRIMARY: what multi-frame MR must say here (PS3.3 C.8.16.1.2), though classic MR of the same kind is SECONDARY.
ENHANCED_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
MAP_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "STD_DEVIATION"]
CONTRASTS = {"t1": "T1", "t1ce": "T1", "t2": "T2", "flair": "FLUID_ATTENUATED", "pd": "PROTON_DENSITY"}
KIND = {"PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME", "VolumeBasedCalculationTechnique": "NONE"}
STACK_ID, IN_STACK_POSITION, FRAME_CONTENT = 0x00209056, 0x00209057, 0x00209111


def enhanced_mr(slices: Volume, source: Source, provenance: Provenance, *, finer: bool) -> Dataset:
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
    stored = to_integers(slices.array)
    _add_frames(dataset, slices, {
        "MRImageFrameTypeSequence": [tags(FrameType=ENHANCED_TYPE, **kind)],
        "PixelValueTransformationSequence": [_rescale(stored.slope, stored.intercept)],
        "FrameVOILUTSequence": [tags(**window(slices.array).tags)],
        "DerivationImageSequence": [tags(**derivation(source, provenance, finer=finer))],
    })  # fmt: skip
    update(dataset, SIXTEEN_BITS)
    dataset.PixelData = stored.integers.tobytes()
    return dataset


def parametric_map(slices: Volume, source: Source, provenance: Provenance, *, finer: bool) -> Dataset:
    """The standard deviation over samples as a Parametric Map, float32, in the units of the series beside it."""
    series = {
        "Modality": "OT",
        "ImageType": MAP_TYPE,
        "SeriesDescription": "AI uncertainty, not for diagnosis",
        "ContentQualification": "RESEARCH",
        "ContentLabel": "UNCERTAINTY",
        "ContentDescription": f"Standard deviation over {provenance.samples} samples",
        "ContentCreatorName": "Score-Fusion^",
        "PixelPresentation": "MONOCHROME",
    }
    dataset = header(source, provenance, ParametricMapStorage, series=series)
    dataset.SeriesNumber += 1
    values = np.ascontiguousarray(slices.array, dtype="<f4")
    low, high = float(values.min()), float(values.max())
    meaning = RealWorldValueMapping(
        lut_label="SD",
        lut_explanation="standard deviation, units of the derived series",
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        quantity_definition=codes.SCT.StandardDeviation,
    )
    _add_frames(dataset, slices, {
        "ParametricMapFrameTypeSequence": [tags(FrameType=MAP_TYPE)],
        "PixelValueTransformationSequence": [_rescale(1, 0)],
        "FrameVOILUTSequence": [tags(**Window(low, high).tags)],
        "RealWorldValueMappingSequence": [meaning],
        "DerivationImageSequence": [tags(**derivation(source, provenance, finer=finer))],
    })  # fmt: skip
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = values.tobytes()
    return dataset


def _add_frames(dataset: Dataset, slices: Volume, shared: Mapping[str, Any]) -> None:
    """Give an object its frames, all but the pixels: one a slice, in one stack; `shared` holds for all of them."""
    organization = generate_uid()
    dimensions = [tags(DimensionOrganizationUID=organization, DimensionIndexPointer=tag, FunctionalGroupPointer=FRAME_CONTENT)
                  for tag in (STACK_ID, IN_STACK_POSITION)]  # fmt: skip
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = slices.spatial_shape
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionOrganizationSequence = [tags(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = dimensions
    dataset.AcquisitionContextSequence = []
    anatomy = tags(FrameLaterality="U", AnatomicRegionSequence=[code(codes.SCT.Brain)])
    dataset.SharedFunctionalGroupsSequence = [tags(
        PixelMeasuresSequence=slices.get_pixel_measures(),
        PlaneOrientationSequence=slices.get_plane_orientation(),
        FrameAnatomySequence=[anatomy],
        **shared,
    )]  # fmt: skip
    dataset.PerFrameFunctionalGroupsSequence = [
        tags(PlanePositionSequence=position, FrameContentSequence=[_place_in_stack(number)])
        for number, position in enumerate(slices.get_plane_positions(), start=1)
    ]


def _place_in_stack(number: int) -> Dataset:
    return tags(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number])


def _rescale(slope: float, intercept: float) -> Dataset:
    return tags(RescaleSlope=decimal(slope), RescaleIntercept=decimal(intercept), RescaleType="US")
