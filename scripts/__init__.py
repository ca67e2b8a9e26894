# SPDX-License-Identifier: Apache-2.0
"""Volume-to-volume translation of medical images by fused 2D diffusion models: `score_fusion` where it is installed."""

from typing import Any

from .bundle import bundle_root, bundle_version, path_in

__all__ = ["bundle_root", "bundle_version", "path_in", "restore"]


def restore(image: Any, affine: Any = None, **options: Any) -> Any:
    """Restore a volume from a path, a nibabel image or an array with its affine: see `running.steps.restore_image`."""
    from .running.steps import restore_image  # here: to ask for a version should not import torch

    return restore_image(image, affine, **options)
