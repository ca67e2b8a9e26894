# SPDX-License-Identifier: Apache-2.0
"""Training: noisy batches, losses, averaged weights, checkpoints with exact resume, progress."""

from .batch import NoisyBatch
from .checkpoint import LatestCheckpoint, export_weights, load_members, load_weights
from .losses import NoiseLoss
from .progress import Progress

__all__ = ["LatestCheckpoint", "NoiseLoss", "NoisyBatch", "Progress", "export_weights", "load_members", "load_weights"]
