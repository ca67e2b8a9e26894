# SPDX-License-Identifier: Apache-2.0
"""Inferers: from volumes to volumes; know no files."""

from .fused_score_inferer import FusedScoreInferer
from .precision import MixedPrecisionInferer
from .uncertainty import SplitUncertaintyd

__all__ = ["FusedScoreInferer", "MixedPrecisionInferer", "SplitUncertaintyd"]
