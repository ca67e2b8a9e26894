# SPDX-License-Identifier: Apache-2.0
"""Helpers of DICOM tests lie in the room beside."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "dicom"))
