# SPDX-License-Identifier: Apache-2.0
"""One volume, the same on every machine, processor and version: in float32, to 1e-3 of its range."""

import golden
import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def wanted():
    return np.load(golden.FILE)["restored"].astype(np.float64)


def psnr(given, wanted):
    return 20 * np.log10(np.ptp(wanted) / np.sqrt(np.mean((given - wanted) ** 2)))


def test_the_shipped_weights_give_the_volume_that_is_kept(wanted):
    given = golden.restored()
    assert psnr(given, wanted) >= 60
    assert np.abs(given - wanted).max() <= 1.0e-3 * np.ptp(wanted)  # float16, in which it is kept, rounds by 5e-4 at most


def test_it_is_no_copy_of_the_scan(wanted):
    """But keeps its block averages, where whole blocks are kept."""
    scan = np.kron(golden.scan(), np.ones((4, 4, 4)))[golden.INNER]
    assert psnr(scan, wanted) < 40
    inner = wanted[:, 2:30]  # blocks of 4 start at multiples of it
    averages, measured = (v.reshape(8, 4, 7, 4, 8, 4).mean(axis=(1, 3, 5)) for v in (inner, scan[:, 2:30]))
    np.testing.assert_allclose(averages, measured, atol=0.3)  # half of the spacing of float16 below 1024, at most
