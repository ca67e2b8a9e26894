# SPDX-License-Identifier: Apache-2.0
"""Volume-to-volume translation of medical images by fused 2D diffusion models."""

import json
from pathlib import Path


def bundle_root() -> str:
    """The folder that holds `configs`, `models` and this package, from wherever a command is started."""
    return str(Path(__file__).resolve().parent.parent)


def bundle_version() -> str:
    """As in configs/metadata.json."""
    version: str = json.loads(Path(bundle_root(), "configs", "metadata.json").read_text(encoding="utf-8"))["version"]
    return version
