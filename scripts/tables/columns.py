# SPDX-License-Identifier: Apache-2.0
"""The columns of tables of results, and those of each of the paper's tables."""

from collections.abc import Sequence
from typing import NamedTuple

from ..evaluation.metrics import heading
from .formats import Column

INTERVAL, ERROR = ("low", "high"), ("standard_error",)


def metric_column(key: str) -> Column:
    """Of a number that every case has, with the interval of its mean."""
    title, form, scale = heading(key)
    return Column(key, title, form, INTERVAL, scale=scale)


NAME, NFE, N = Column("system", "system"), Column("nfe", "NFE", ".0f"), Column("n", "n", ".0f")
PSNR, SSIM, PSNR_STD, SSIM_STD = map(metric_column, ("psnr", "ssim", "psnr_std", "ssim_std"))
PSNR_FOREGROUND, SSIM_FOREGROUND, MACE = map(metric_column, ("psnr_foreground", "ssim_foreground", "mace"))
MMD, MMD_BIAS = Column("mmd", "MMD", ".2f"), Column("mmd_bias", "MMD bias", ".2f")
FID, KID = Column("fid", "FID", ".2f", ERROR), Column("kid", "KID", ".4f", ERROR)
PSNR_FITTED, TUMOUR_CONTRAST, TUMOUR_AUC = map(metric_column, ("psnr_fitted", "tumour_contrast", "tumour_auc"))
SECONDS, TRAINING = metric_column("seconds")._replace(spread=()), Column("training_days", "training (days)", ".2g")
SMALL, CONSISTENCY = Column("small", "smaller model"), Column("consistency", "consistency")
VOLUMES, FEATURES = Column("volumes", "full volumes after patches"), Column("features", "features")
BIAS = MMD_BIAS._replace(csv_only=True)
MAIN = (NAME, PSNR, SSIM, MMD, MMD_BIAS, FID, KID, PSNR_FOREGROUND, SSIM_FOREGROUND, MACE, PSNR_STD, SSIM_STD)
QUALITY = (NAME, PSNR, SSIM, MMD, BIAS, FID, NFE, SECONDS, N)


class View(NamedTuple):
    """A table of the paper: our columns for it, and what it shows."""

    columns: Sequence[Column]
    title: str


FLOORS = View((NAME, PSNR, PSNR_FITTED, SSIM, TUMOUR_CONTRAST, TUMOUR_AUC, N), "What a network must beat")
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
