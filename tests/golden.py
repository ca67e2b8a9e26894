# SPDX-License-Identifier: Apache-2.0
"""A head that is computed, not drawn, and what the shipped weights made of it: `python tests/golden.py` renews that."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FILE = Path(__file__).with_name("golden.npz")
SIDES, VOXEL = (10, 11, 10), 4.0  # voxels of the scan, in mm
INNER = (slice(4, 36), slice(6, 38), slice(4, 36))  # of the result, that is kept


def scan():
    """An ellipsoid with folds in it, 0 around it: (H, W, D) in float32."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SIDES), indexing="ij")
    radius = np.sqrt((x / 0.9) ** 2 + (y / 0.95) ** 2 + (z / 0.85) ** 2)
    folds = np.sin(9 * x + 2 * np.cos(5 * y)) * np.cos(8 * z + 3 * x * y)
    return np.where(radius < 1, 600 + 250 * folds - 300 * (radius > 0.8), 0).astype(np.float32)


def restored(**options):
    """Voxels of the result, by model.pt in float32 unless told otherwise."""
    from scripts import restore

    given = {"precision": "float32", "backend": "torch", "device": "cpu", **options}
    return restore(scan(), np.diag([VOXEL] * 3 + [1.0]), task="super_resolution", **given).get_fdata(dtype=np.float32)[INNER]


if __name__ == "__main__":
    np.savez_compressed(FILE, restored=restored().astype(np.float16))
    print(f"{FILE}: {FILE.stat().st_size / 1e3:.0f} kB")
