# SPDX-License-Identifier: Apache-2.0
"""Evaluation: metrics, comparisons and pictures."""

from .scaling import ScaleToTruthd

__all__ = ["ScaleToTruthd"]
