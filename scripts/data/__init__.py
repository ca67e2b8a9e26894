# SPDX-License-Identifier: Apache-2.0
"""Data: finding cases, reading and writing volumes, patches that know their place."""

from .cases import find_cases
from .grid import CropToContentd, RestoreGridd
from .patches import EpochSampler, PatchDataset, PrepareTrainingd, SlicePatch, VolumePatch
from .provenance import Provenance
from .volumes import LoadVolumesd
from .write import SaveVolumed

__all__ = [
    "CropToContentd", "EpochSampler", "LoadVolumesd", "PatchDataset", "PrepareTrainingd", "Provenance", "RestoreGridd",
    "SaveVolumed", "SlicePatch", "VolumePatch", "find_cases",
]  # fmt: skip
