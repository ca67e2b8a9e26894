# SPDX-License-Identifier: Apache-2.0
"""The paper's own numbers: Zhu et al. 2025, BraTS 2021, means over 251 volumes."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row of the paper's tables; None is a number that we do not have."""

    method: str
    task: str
    psnr: float
    ssim: float | None = None
    mmd: float | None = None
    fid: float | None = None


PUBLISHED = (
    Published("U-Net 2D", "super-resolution", 30.32, 0.579, 917, 58.9),
    Published("U-Net 2D", "translation", 23.74, 0.846, 1829, 320),
    Published("U-Net 2D", "both", 33.58, 0.931, 83.5, 36.6),
    Published("Palette 2D", "super-resolution", 29.26, 0.894, 40.9, 13.5),
    Published("Palette 2D", "translation", 22.68, 0.784, 284, 85.9),
    Published("Palette 2D", "both", 33.6, 0.939, 34.9, 9.3),
    Published("U-Net 3D", "super-resolution", 31.23, 0.892, 116, 59.6),
    Published("U-Net 3D", "translation", 23.43, 0.809, 488, 274),
    Published("U-Net 3D", "both", 32.95, 0.922, 43.3, 43.9),
    Published("TPDM (average)", "super-resolution", 32.23, 0.922, 29.4, 17.3),
    Published("TPDM (average)", "translation", 25.35, 0.868, 176, 186),
    Published("TPDM (average)", "both", 35.12, 0.945, 14.5, 22.2),
    Published("learned fusion on TPDM", "super-resolution", 33.24, 0.944, 13.8, 8.3),
    Published("learned fusion on TPDM", "translation", 25.26, 0.882, 155, 48.2),
    Published("learned fusion on TPDM", "both", 36.24, 0.961, 7.5, 5.8),
    Published("TOSM (average)", "super-resolution", 32.76),
    Published("TOSM (average)", "translation", 25.66),
    Published("TOSM (average)", "both", 35.44),
    Published("learned fusion on TOSM", "super-resolution", 33.30),
    Published("learned fusion on TOSM", "translation", 25.24),
    Published("learned fusion on TOSM", "both", 36.51),
    Published("MADM (average)", "super-resolution", 33.02),
    Published("MADM (average)", "translation", 25.47),
    Published("MADM (average)", "both", 35.21),
    Published("learned fusion on MADM", "super-resolution", 33.31),
    Published("learned fusion on MADM", "translation", 25.13),
    Published("learned fusion on MADM", "both", 36.37),
)
PUBLISHED_MINUTES = {  # a volume, 50 steps, NVIDIA A100 40 GB
    "Palette 2D": 0.85, "TPDM (average)": 1.72, "learned fusion on TPDM": 2.34,
    "learned fusion on TOSM": 3.23, "learned fusion on MADM": 3.56,
}  # fmt: skip
PUBLISHED_N = 251
PUBLISHED_NOTE = (
    "published for FLAIR of BraTS 2021 (seconds: 50 steps on an A100); other data than ours, so read it as a landmark"
)
