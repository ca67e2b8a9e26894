# SPDX-License-Identifier: Apache-2.0
"""What is known of a DICOM series before its pixels are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
REFORMATTED = frozenset({"MPR", "REFORMATTED", "RESAMPLED", "CSA RESAMPLED", "AVERAGE"})


@dataclass(frozen=True)
class DicomSeries:
    """The slices of one volume: a whole series or, where it holds several volumes, one echo, component or repetition of it.

    files: ordered along the slice normal, row direction x column direction; a single one when `enhanced`, and then
    `frames` are its frame numbers (from 1) in that order. part: which of several volumes, "" for the only one.
    shape: (columns, rows, slices). spacing: mm along these axes. plane: "axial", "coronal", "sagittal" or "oblique".
    position, orientation: of the first slice, as in DICOM (LPS). step: from slice to slice, mm, where that is not the normal.
    thickness: of the slices in mm, 0 where the headers do not say.
    contrast: the scanner's own word for the weighting. Times are in ms, None where the headers do not say.
    problem: why it cannot be used; exclusion: why it is used only when the user names it; both are empty for a good one.
    doubts: lines on what may be wrong with it all the same.
    """

    files: tuple[str, ...]
    uid: str
    study_uid: str
    patient_id: str
    number: int | None = None
    description: str = ""
    modality: str = "MR"
    body_part: str = ""
    enhanced: bool = False
    frames: tuple[int, ...] = ()
    part: str = ""
    study_date: str = ""
    image_type: tuple[str, ...] = ()
    contrast: str = ""
    contrast_agent: str = ""
    scanning_sequence: tuple[str, ...] = ()
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    shape: tuple[int, int, int] = (0, 0, 0)
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    plane: str = ""
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    step: tuple[float, ...] = ()
    thickness: float = 0.0
    problem: str = ""
    exclusion: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What a user's rule is matched against: "11 T1post", "7 gre (echo 20 ms)"."""
        number = "" if self.number is None else str(self.number)
        return " ".join(part for part in (number, self.description, f"({self.part})" if self.part else "") if part)

    @property
    def doubt(self) -> str:
        """The name of `exclusion` up to 0.6.0."""
        return self.exclusion

    def content(self) -> dict[str, Any]:
        """As JSON holds it, files by their full paths."""
        return {**asdict(self), "files": [str(Path(file).absolute()) for file in self.files]}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> DicomSeries:
        """From `content`, also when that went through JSON."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        if "doubt" in values:
            values["exclusion"] = values.pop("doubt")
        return cls(**values)

    @property
    def derived(self) -> bool:
        """Computed from other images, as by reformatting; originals are preferred."""
        return "DERIVED" in self.image_type[:1] or not REFORMATTED.isdisjoint(self.image_type)

    def __str__(self) -> str:
        return f"series {self.label or self.uid}".replace("/", "-")  # messages take what follows a slash for a file name


def affine_of(series: DicomSeries) -> npt.NDArray[np.float64]:
    """4x4, voxels (column, row, slice) to mm in RAS, from the headers alone."""
    row, column = (np.divide(axis, np.linalg.norm(axis)) for axis in (series.orientation[:3], series.orientation[3:]))
    normal = np.cross(row, column)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * series.spacing[0], column * series.spacing[1]
    affine[:3, 2] = series.step or normal / np.linalg.norm(normal) * series.spacing[2]
    affine[:3, 3] = series.position
    return LPS_TO_RAS @ affine
