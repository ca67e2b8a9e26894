# SPDX-License-Identifier: Apache-2.0
"""Volume-to-volume translation of medical images by fused 2D diffusion models: `score_fusion` where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .bundle import bundle_root, bundle_version, path_in

if TYPE_CHECKING:
    from nibabel import Nifti1Image
    from numpy.typing import ArrayLike

    from .running.steps import Image

__all__ = ["bundle_root", "bundle_version", "path_in", "restore"]


def restore(
    image: Image | Sequence[Image], affine: ArrayLike | None = None, *, task: str | None = None, **options: Any
) -> Nifti1Image:
    """Restore a volume from a path, a nibabel image, a MetaTensor or an array with its affine: see
    `running.steps.restore_image`.
    """
    from .running.steps import restore_image  # here: to ask for a version should not import torch

    return restore_image(image, affine, task=task, **options)
