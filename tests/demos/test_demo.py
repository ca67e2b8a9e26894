# SPDX-License-Identifier: Apache-2.0
"""The quick start, of small heads of the template that nilearn ships, by the weights that ship."""

import io
import json
import re
from contextlib import redirect_stdout

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from scripts.demos.demo import demo

pytestmark = pytest.mark.filterwarnings("ignore")


# Finest from left to right, as heads that were acquired in sagittal slices.
TILTED = np.array([[1, 0, 0, -80], [0, 1.25, -0.36, -90], [0, 0.36, 1.25, -60], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What a run of it leaves and prints: of the template at 3 mm as if at 1 mm, and of a head that is tilted."""
    folder, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    voxels = load_mni152_template(resolution=3).get_fdata().astype(np.float32)[4:60, 4:72, 2:54]
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "brain.nii.gz")
    nib.save(nib.Nifti1Image(500 * voxels, TILTED), folder / "head.nii.gz")
    with redirect_stdout(printed):
        demo(str(folder), brain=str(folder / "brain.nii.gz"), head=str(folder / "head.nii.gz"))
    return folder, printed.getvalue()


def blocks(volume, factors):
    """Means over blocks of voxels."""
    h, w, d = (side // factor for side, factor in zip(volume.shape, factors, strict=True))
    return volume.reshape(h, factors[0], w, factors[1], d, factors[2]).mean(axis=(1, 3, 5))


def test_figures_are_of_the_files_that_are_left_and_what_was_measured_is_kept(shown):
    folder, printed = shown
    truth, low, result = (
        nib.load(folder / name).get_fdata()
        for name in ("truth.nii.gz", "low_resolution/brain_t1.nii.gz", "restored/brain/brain_pred.nii.gz")
    )
    np.testing.assert_allclose(low, blocks(truth, (4, 4, 4)), atol=1e-5)
    np.testing.assert_allclose(blocks(result, (4, 4, 4)), low, atol=1e-4)
    of_brain = printed[printed.index("T1w brain") :].partition("look at")[0]
    figures = {name: float(psnr) for name, psnr in re.findall(r"^(\w+) +(\d+\.\d\d) +0\.\d{4}$", of_brain, re.MULTILINE)}
    assert list(figures) == ["input", "trilinear", "cubic", "restored"]
    assert figures["restored"] == pytest.approx(peak_signal_noise_ratio(truth, result, data_range=1), abs=0.01)


def test_slices_of_the_head_are_means_in_their_places(shown):
    folder, printed = shown
    scan, fine = nib.load(folder / "low_resolution" / "head_t1.nii.gz"), nib.load(folder / "head.nii.gz")
    np.testing.assert_allclose(scan.get_fdata(), blocks(fine.get_fdata(), (4, 1, 1)), rtol=1e-4, atol=0.1)
    assert json.loads((folder / "low_resolution" / "head_t1.json").read_text())["SliceThickness"] == pytest.approx(4)
    centre = TILTED @ [4 * 5 + 1.5, 12, 10, 1]  # of the sixth slice
    np.testing.assert_allclose(scan.affine @ [5, 12, 10, 1], centre, atol=1e-3)
    assert "T1w of a whole head, slices of 4.0 mm to 1.3 x 1.3 x 1.3 mm\n" in printed


def test_every_picture_is_drawn(shown):
    folder, _ = shown
    for name in ("demo.png", "close_up.webp", "head.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 800 and len(picture.convert("L").getcolors()) > 50, name
