# SPDX-License-Identifier: Apache-2.0
"""Data: finding cases, reading and writing volumes, patches that know their place."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augmentation import Augmentation as Augmentation
    from .cases import find_cases as find_cases
    from .cases import first as first
    from .contents import known_by as known_by
    from .grid import CropToContentd as CropToContentd
    from .grid import RestoreGridd as RestoreGridd
    from .patches import EpochSampler as EpochSampler
    from .patches import PatchDataset as PatchDataset
    from .patches import PrepareTrainingd as PrepareTrainingd
    from .patches import SlicePatch as SlicePatch
    from .patches import VolumePatch as VolumePatch
    from .provenance import Provenance as Provenance
    from .random_scans import PrepareScand as PrepareScand
    from .random_scans import ScanPatch as ScanPatch
    from .random_scans import scans_of as scans_of
    from .seen import DoubtUnseend as DoubtUnseend
    from .specialists import ChooseWeightsd as ChooseWeightsd
    from .volumes import LoadVolumesd as LoadVolumesd
    from .within_slices import ResampleWithinSlicesd as ResampleWithinSlicesd
    from .write import SaveVolumed as SaveVolumed

_NAMES = {
    "augmentation": ("Augmentation",),
    "cases": ("find_cases", "first"),
    "contents": ("known_by",),
    "grid": ("CropToContentd", "RestoreGridd"),
    "patches": ("EpochSampler", "PatchDataset", "PrepareTrainingd", "SlicePatch", "VolumePatch"),
    "provenance": ("Provenance",),
    "random_scans": ("PrepareScand", "ScanPatch", "scans_of"),
    "seen": ("DoubtUnseend",),
    "specialists": ("ChooseWeightsd",),
    "volumes": ("LoadVolumesd",),
    "within_slices": ("ResampleWithinSlicesd",),
    "write": ("SaveVolumed",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for: who computes nothing, as the doctor, does not wait seconds for PyTorch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
