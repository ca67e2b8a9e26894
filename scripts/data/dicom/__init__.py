# SPDX-License-Identifier: Apache-2.0
"""DICOM: series found, chosen and read. Only `series` may be imported without pydicom and highdicom."""

from .series import DicomSeries

__all__ = ["DicomSeries"]
