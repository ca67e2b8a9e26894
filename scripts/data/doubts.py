# SPDX-License-Identifier: Apache-2.0
"""What the reader and the doctor judge sources by; there is one set of tolerances."""

GRID_TOLERANCE_MM = 0.01  # between corner voxels: scanners and converters round positions to two decimals
