# SPDX-License-Identifier: Apache-2.0
"""Cine: loops of images in time, of a heart or of any video."""

from .cine import Cine
from .nifti import read_cine, write_cine

__all__ = ["Cine", "read_cine", "write_cine"]
