# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from surroundings import SCANS, needs_scans

from scripts import bundle_root
from scripts.errors import BadInput
from scripts.experiments.sigma_data import sigma_data

ROOT = Path(bundle_root())
TRANSLATION = str(ROOT / "configs" / "task_translation.yaml")


def normalised(voxels):
    """Background 0 to -1, and to 0.5 the voxel than which 0.1 % of the others are brighter."""
    bright = np.sort(voxels[voxels > 0])
    return 1.5 * voxels / bright[int(0.999 * bright.size) - 1] - 1


def by_its_tissue(volume):
    """As in training another contrast is: the median of what is brighter than a tenth of the bright end at 0.64 above -1."""
    return 0.64 * volume / np.median(volume[volume > 0.1 * np.quantile(volume[volume > 0], 0.999)]) - 1


def test_it_is_the_spread_of_half_the_difference_inside_the_head(tmp_path, rng, capsys):
    variances = []
    for case in "abc":
        volumes = np.zeros((2, 32, 36, 40))
        volumes[:, 8:24, 9:27, 10:30] = rng.uniform([[[[300]]], [[[30]]]], [[[[900]]], [[[50]]]], (2, 16, 18, 20))
        for name, voxels in zip(("t1ce", "flair"), volumes, strict=True):
            nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)), tmp_path / f"{case}_{name}.nii.gz")
        condition, target = normalised(volumes[0]), by_its_tissue(volumes[1])
        variances.append(((target - condition) / 2)[volumes[0] > 0].var())
    found = sigma_data(str(tmp_path), TRANSLATION, split="all")
    assert found == pytest.approx(np.sqrt(np.mean(variances)), rel=1e-3)  # n or n - 1
    assert f"sigma_data: {found:.3g}" in capsys.readouterr().out
    assert sigma_data(str(tmp_path), TRANSLATION, split="all", max_cases=1) == pytest.approx(np.sqrt(variances[0]), rel=1e-3)
    assert "n = 1" in capsys.readouterr().out
    for count in (0, -1):
        with pytest.raises(BadInput, match=f"max_cases {count}: give 1 and more"):
            sigma_data(str(tmp_path), TRANSLATION, split="all", max_cases=count)


def test_an_overlay_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="task_nowhere"):
        sigma_data(str(tmp_path), "configs/task_nowhere.yaml")


@needs_scans
@pytest.mark.parametrize(
    ("task", "data", "cases"), [("super_resolution", "t1", 2), ("thick_planes", "t1", 2), ("translation", "glioma", 8)]
)
def test_real_scans_give_the_value_that_ships(task, data, cases):
    file = ROOT / "configs" / f"task_{task}.yaml"
    shipped = yaml.safe_load(file.read_text())["sigma_data"]
    assert sigma_data(str(SCANS / data), str(file), max_cases=cases) == pytest.approx(shipped, rel=0.2)  # few of the cases
