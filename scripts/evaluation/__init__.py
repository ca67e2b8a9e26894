# SPDX-License-Identifier: Apache-2.0
"""Evaluation: metrics, results, downstream segmentation, uncertainty."""

from ..running.case_evaluator import CaseEvaluator, TolerantDataset
from ..running.record import RunRecord
from .downstream import SegmentationInferer
from .downstream_results import DownstreamResults
from .features import FilterBank
from .medical_net import MedicalNet
from .metrics import psnr, ssim
from .predictions import NoInference, ReadPredictiond, system_of
from .results import Results
from .scaling import ScaleToTruthd

__all__ = [
    "CaseEvaluator", "DownstreamResults", "FilterBank", "MedicalNet", "NoInference", "ReadPredictiond", "Results", "RunRecord",
    "ScaleToTruthd", "SegmentationInferer", "TolerantDataset", "psnr", "ssim", "system_of",
]  # fmt: skip
