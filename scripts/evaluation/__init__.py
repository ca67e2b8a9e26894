# SPDX-License-Identifier: Apache-2.0
"""Evaluation: running cases, metrics, results."""

from .case_evaluator import CaseEvaluator, TolerantDataset
from .features import FilterBank
from .medical_net import MedicalNet
from .metrics import psnr, ssim
from .predictions import NoInference, ReadPredictiond, system_of
from .record import RunRecord
from .results import Results
from .scaling import ScaleToTruthd

__all__ = [
    "CaseEvaluator", "FilterBank", "MedicalNet", "NoInference", "ReadPredictiond", "Results", "RunRecord", "ScaleToTruthd",
    "TolerantDataset", "psnr", "ssim", "system_of",
]  # fmt: skip
