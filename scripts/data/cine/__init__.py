# SPDX-License-Identifier: Apache-2.0
"""Cine: loops of images (x, y, time), one or a stack of slices, read from and written to DICOM, NIfTI and video."""

from .cine import Cine
from .kinds import read_cine, write_cine

__all__ = ["Cine", "read_cine", "write_cine"]
