# SPDX-License-Identifier: Apache-2.0
"""Volume-to-volume translation of medical images by fused 2D diffusion models: `score_fusion` where it is installed."""

import json
from pathlib import Path
from typing import Any

__all__ = ["bundle_root", "bundle_version", "restore"]


def bundle_root() -> str:
    """The folder that holds `configs` and `models`, wherever a command is started; an installed package holds them itself."""
    package = Path(__file__).resolve().parent
    return str(package if (package / "configs").is_dir() else package.parent)


def bundle_version() -> str:
    """As in configs/metadata.json."""
    version: str = json.loads(Path(bundle_root(), "configs", "metadata.json").read_text(encoding="utf-8"))["version"]
    return version


def restore(image: Any, affine: Any = None, **options: Any) -> Any:
    """Restore a volume from a path, a nibabel image or an array with its affine: see `running.steps.restore_image`."""
    from .running.steps import restore_image  # here: to ask for a version should not import torch

    return restore_image(image, affine, **options)
