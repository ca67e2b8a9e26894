# SPDX-License-Identifier: Apache-2.0
"""Training: noisy batches, losses, averaged weights, checkpoints with exact resume, progress."""

from ..networks.weights import export_weights, load_members, load_weights
from .adversary import PairedBatch, PatchAdversary
from .averaging import AveragedWeights
from .batch import NoisyBatch
from .checkpoint import LatestCheckpoint, check_start, fusion_to_train, plane_to_train
from .gradients import BoundedGradients
from .losses import NoiseLoss
from .plane_cache import PlaneCache, RecallingFusion
from .processes import join_processes, seed_process
from .progress import Progress, SampleImages, loss_of
from .segmentation import AugmentedPatch, LabelRegionsd, load_segmentation

__all__ = [
    "AugmentedPatch", "AveragedWeights", "BoundedGradients", "LabelRegionsd", "LatestCheckpoint", "NoiseLoss", "NoisyBatch",
    "PairedBatch", "PatchAdversary", "PlaneCache", "Progress", "RecallingFusion", "SampleImages", "check_start",
    "export_weights", "fusion_to_train", "join_processes", "load_members", "load_segmentation", "load_weights", "loss_of",
    "plane_to_train", "seed_process",
]  # fmt: skip
