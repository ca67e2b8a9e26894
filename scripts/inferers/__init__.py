# SPDX-License-Identifier: Apache-2.0
"""Inferers: from volumes to volumes; know no files."""

from .adapting_inferer import AdaptingInferer
from .exported_sampler import ExportedSampler
from .fused_score_inferer import FusedScoreInferer, SplitUncertaintyd
from .intervals import PredictIntervald
from .precision import MixedPrecisionInferer

__all__ = [
    "AdaptingInferer", "ExportedSampler", "FusedScoreInferer", "MixedPrecisionInferer", "PredictIntervald", "SplitUncertaintyd",
]  # fmt: skip
