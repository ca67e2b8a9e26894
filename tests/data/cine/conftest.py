# SPDX-License-Identifier: Apache-2.0
"""Helpers of DICOM tests lie in the room beside; and what tests of cine MR start from."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "dicom"))
import dicom_series
from cine_files import beating


@pytest.fixture
def affine(rng):
    return dicom_series.random_affine(rng, (1.4, 1.6, 8.0))


@pytest.fixture
def film(rng):
    return beating(rng=rng)
