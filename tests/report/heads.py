# SPDX-License-Identifier: Apache-2.0
"""What the tests of this room share: a head, and how volumes are saved."""

import nibabel as nib
import numpy as np

SIDES = (24, 28, 32)


def draw_head(rng):
    voxels = np.zeros(SIDES)
    voxels[4:20, 4:24, 4:28] = rng.uniform(300, 900, (16, 20, 24))
    return voxels


def save(voxels, path, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), path)
    return str(path)
