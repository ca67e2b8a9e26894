# SPDX-License-Identifier: Apache-2.0
"""The quick start: a low-resolution copy of a well-known brain, restored by the shipped weights."""

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

from ..data.meta_tensors import make_volume
from ..data.volumes import pad_to_multiple, read_volume
from ..data.write import check_output_dir, write_volume
from ..evaluation.metrics import psnr, ssim
from ..measurement import BlockAverage
from ..report.planes_figure import planes_figure
from ..report.slices import Volume
from ..running.workflow import run_workflow

FACTORS = (4, 4, 4)


def demo(output: str, *, samples: int = 3) -> None:
    """Restore the MNI152 T1 that nilearn ships from its 4x4x4 block averages.

    samples: runs with different noise, at least 2. Leaves in `output`: `low_resolution/` (input), `restored/` (result and
    uncertainty), `truth.nii.gz` and `demo.png`.
    Prints PSNR and SSIM of trilinear interpolation and of the result, on the scale and grid of the truth.
    """
    check_output_dir(output)
    folder = Path(output)
    truth, coarse = _write_input(folder)
    start = time.monotonic()
    paths = {"dataset_dir": folder / "low_resolution", "output_dir": folder / "restored"}
    run_workflow("inference", ["sampler_fast"], run_id="inference", samples=max(samples, 2), **paths)
    seconds = time.monotonic() - start
    names = [folder / "restored" / "mni152" / f"mni152_{name}.nii.gz" for name in ("pred", "uncertainty")]
    pred, uncertainty = (read_volume(path)[0].numpy() for path in names)
    trilinear = F.interpolate(torch.as_tensor(coarse)[None, None], scale_factor=4.0, mode="trilinear")[0, 0].numpy()
    blocks = BlockAverage(FACTORS).repeat(torch.as_tensor(coarse)).numpy()
    print(f"{'':12}{'PSNR':>8}{'SSIM':>8}")
    for name, volume in (("trilinear", trilinear), ("restored", pred)):
        print(f"{name:12}{psnr(volume, truth):8.2f}{ssim(volume, truth):8.4f}")
    print(f"{samples} samples in {seconds:.0f} s; look at {folder / 'demo.png'}")
    shown = {"input": blocks, "restored": pred, "truth": truth, "error": pred - truth, "uncertainty": uncertainty}
    planes_figure(shown, folder / "demo.png", "MNI152 T1, 4 mm to 1 mm. Synthetic, not for diagnosis.")


def _write_input(folder: Path) -> tuple[Volume, Volume]:
    """Truth (H, W, D) in [0, 1] and its measurement, both also written as NIfTI."""
    from nilearn.datasets import load_mni152_template  # here, because it takes seconds to import

    folder.mkdir(parents=True, exist_ok=True)
    template = folder / "truth.nii.gz"
    nib.save(load_mni152_template(resolution=1), template)
    volume = read_volume(template)
    truth = pad_to_multiple(volume.as_tensor(), FACTORS)
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    coarse = BlockAverage(FACTORS).measure(truth)
    centre = np.diag([*FACTORS, 1.0])
    centre[:3, 3] = (np.array(FACTORS) - 1) / 2
    affine = volume.affine.numpy()
    write_volume(make_volume(truth, affine, {}), template)
    write_volume(make_volume(coarse, affine @ centre, {}), folder / "low_resolution" / "mni152_t1.nii.gz")
    return truth[0].numpy(), coarse[0].numpy()
