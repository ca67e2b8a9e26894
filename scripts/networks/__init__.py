# SPDX-License-Identifier: Apache-2.0
"""Networks: plane denoisers, their 3D fusion, and both as one module; what they are compared to."""

from .fusion_net import FusionNet
from .modality_fusion import ModalityFusion
from .plane_denoiser import PlaneDenoiser
from .score_fusion import ScoreFusion
from .volume_denoiser import VolumeDenoiser
from .weights import load_weights, own_or_shipped

__all__ = ["FusionNet", "ModalityFusion", "PlaneDenoiser", "ScoreFusion", "VolumeDenoiser", "load_weights", "own_or_shipped"]
