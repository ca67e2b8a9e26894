# SPDX-License-Identifier: Apache-2.0
"""Volume-to-volume translation of medical images by fused 2D diffusion models."""

from pathlib import Path


def bundle_root() -> str:
    """The folder that holds `configs`, `models` and this package, from wherever a command is started."""
    return str(Path(__file__).resolve().parent.parent)
