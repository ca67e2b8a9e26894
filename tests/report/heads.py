# SPDX-License-Identifier: Apache-2.0
"""What the tests of this room share: a head, how volumes are saved, and what pages of a run say."""

import re

import nibabel as nib
import numpy as np

from scripts.report import report

SIDES = (24, 28, 32)
METRICS = {"psnr": 27.5, "ssim": 0.91, "seconds": 3.25}


def draw_head(rng):
    voxels = np.zeros(SIDES)
    voxels[4:20, 4:24, 4:28] = rng.uniform(300, 900, (16, 20, 24))
    return voxels


def save(voxels, path, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), path)
    return str(path)


def pages(run, **given):
    group = report(str(run / "out"), dataset_dir=str(run / "data"), **given)
    return group.read_text(), {page.parent.name: page.read_text() for page in group.parent.glob("*/report.html")}


def columns(page):
    """Names over the pictures of one plane."""
    return list(dict.fromkeys(re.findall(r"<figcaption><b>(.*?)</b>", page)))
