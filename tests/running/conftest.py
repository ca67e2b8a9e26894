# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from nibabel import Nifti1Image, save

from scripts.networks import ScoreFusion
from scripts.networks.weights import write

# Stored as left-posterior-superior with permuted axes, so that nothing works by luck.
COARSE = np.array([[0, -4.0, 0, 17.5], [0, 0, -4.0, -8], [4.0, 0, 0, 3], [0, 0, 0, 1]])


@pytest.fixture
def image(rng):
    """A coarse head of noise with background around it."""
    voxels = np.zeros((9, 8, 10), dtype=np.float32)
    voxels[2:7, 2:6, 2:8] = rng.uniform(300, 900, (5, 4, 6))
    return Nifti1Image(voxels, COARSE)


@pytest.fixture
def file(image, tmp_path):
    save(image, tmp_path / "anna_t1.nii.gz")
    return tmp_path / "anna_t1.nii.gz"


@pytest.fixture
def weights(tmp_path, awaken):
    write(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "tiny.pt")  # as a training of one's own does
    return tmp_path / "tiny.pt"
