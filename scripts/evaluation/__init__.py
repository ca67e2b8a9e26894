# SPDX-License-Identifier: Apache-2.0
"""Evaluation: running cases, metrics, results."""

from .case_evaluator import CaseEvaluator, TolerantDataset
from .metrics import psnr, ssim
from .results import Results
from .scaling import ScaleToTruthd

__all__ = ["CaseEvaluator", "Results", "ScaleToTruthd", "TolerantDataset", "psnr", "ssim"]
