# SPDX-License-Identifier: Apache-2.0
"""Networks: plane denoisers, their 3D fusion, and both as one module."""

from .fusion_net import FusionNet
from .plane_denoiser import PlaneDenoiser
from .score_fusion import ScoreFusion

__all__ = ["FusionNet", "PlaneDenoiser", "ScoreFusion"]
