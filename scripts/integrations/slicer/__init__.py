# SPDX-License-Identifier: Apache-2.0
"""3D Slicer: a loader of results, and an entry for the extension SlicerModalityConverter (docs/slicer.md)."""
