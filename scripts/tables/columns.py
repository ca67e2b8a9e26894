# SPDX-License-Identifier: Apache-2.0
"""The columns of tables of results, and those of each of the paper's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..evaluation.uncertainty_metrics import MACE_UNIT
from .formats import Column

INTERVAL, ERROR = ("low", "high"), ("standard_error",)
NAME, NFE, N = Column("system", "system"), Column("nfe", "NFE", ".0f"), Column("n", "n", ".0f")
PSNR, SSIM = Column("psnr", "PSNR (dB)", ".2f", INTERVAL), Column("ssim", "SSIM", ".3f", INTERVAL)
PSNR_FOREGROUND = Column("psnr_foreground", "PSNR foreground (dB)", ".2f", INTERVAL)
SSIM_FOREGROUND = Column("ssim_foreground", "SSIM foreground", ".3f", INTERVAL)
MACE = Column("mace", "MACE (1e-4)", ".2f", INTERVAL, scale=1 / MACE_UNIT)
PSNR_STD = Column("psnr_std", "PSNR std over runs (dB)", ".3g", INTERVAL)
SSIM_STD = Column("ssim_std", "SSIM std over runs", ".3g", INTERVAL)
MMD, MMD_BIAS = Column("mmd", "MMD", ".2f"), Column("mmd_bias", "MMD bias", ".2f")
FID, KID = Column("fid", "FID", ".2f", ERROR), Column("kid", "KID", ".4f", ERROR)
SECONDS, TRAINING = Column("seconds", "seconds a volume", ".1f"), Column("training_days", "training (days)", ".2g")
SMALL, CONSISTENCY = Column("small", "smaller model"), Column("consistency", "consistency")
VOLUMES, FEATURES = Column("volumes", "full volumes after patches"), Column("features", "features")
BIAS = MMD_BIAS._replace(csv_only=True)
MAIN = (NAME, PSNR, SSIM, MMD, MMD_BIAS, FID, KID, PSNR_FOREGROUND, SSIM_FOREGROUND, MACE, PSNR_STD, SSIM_STD)
QUALITY = (NAME, PSNR, SSIM, MMD, BIAS, FID, NFE, SECONDS, N)


class View(NamedTuple):
    """A table of the paper: our columns for it, and what it shows."""

    columns: Sequence[Column]
    title: str


VIEWS = {
    1: View(QUALITY, "Accuracy and realism"),
    3: View((NAME, PSNR, SSIM, MMD, BIAS, TRAINING, NFE, N), "Modalities fused without training the planes again"),
    4: View((NAME, SMALL, CONSISTENCY, VOLUMES, FEATURES, PSNR, SSIM, MMD, BIAS, NFE, N), "Ablations of the fusion"),
    5: View(
        (NAME, PSNR, PSNR_STD, SSIM, SSIM_STD, MACE, NFE, N),
        "Uncertainty; our PSNR and SSIM are of the mean of the samples, std is that of single ones",
    ),
    6: View(QUALITY, "Accuracy and realism beside the paper's on HCP"),
    8: View((NAME, TRAINING, SECONDS, NFE, N), "Time"),
}  # fmt: skip
