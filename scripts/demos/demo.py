# SPDX-License-Identifier: Apache-2.0
"""The quick start: a low-resolution copy of a well-known brain, and thick slices of a head, restored by the shipped weights."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.data.meta_tensor import MetaTensor

from ..data.grid import restore_grid
from ..data.meta_tensors import make_volume
from ..data.volumes import LoadVolumesd, pad_to_multiple, read_volume
from ..data.write import check_output_dir, write_volume
from ..evaluation.metrics import psnr, ssim
from ..files import write_json
from ..measurement import AsScanned, BlockAverage
from ..measurement.degradations import cubic
from ..report.planes_figure import close_up_figure, planes_figure
from ..report.slices import Volume
from ..running.workflow import run_workflow

FACTORS = (4, 4, 4)
THICK = 4  # voxels of a whole head in a slice, along the axis of its finest ones
NOT_FOR_DIAGNOSIS = "Synthetic, not for diagnosis."


def demo(output: str, *, brain: str | None = None, head: str | None = None) -> None:
    """Restore the MNI152 T1 that nilearn ships from its 4x4x4 block averages, and thick slices of a whole head.

    brain: a fine T1w volume in place of MNI152; head: a fine volume of a whole head, which is measured here; without it only
    the brain is shown. Leaves in `output`: `low_resolution/` (input), `restored/` (results and intervals), `truth.nii.gz`,
    `demo.png` (three planes and maps) and `close_up.webp`, and of the head `head.png`.
    Prints PSNR and SSIM of interpolation and of the result, on the scale and grid of the truth.
    """
    check_output_dir(output)
    folder, name = Path(output), "brain" if brain else "mni152"
    scans, restored = folder / "low_resolution", folder / "restored"
    for case, ending in product(("brain", "head", "mni152"), ("json", "nii.gz")):
        (scans / f"{case}_t1.{ending}").unlink(missing_ok=True)  # of a run before
    truth, coarse, spacing = _write_input(folder, name, brain)
    whole = read_volume(head) if head else None
    if whole is not None:
        _write_thick(whole, scans / "head_t1.nii.gz")
    start = time.monotonic()
    run_workflow("inference", ["task_any"], run_id="inference", dataset_dir=scans, output_dir=restored)
    print(f"restored in {time.monotonic() - start:.0f} s")
    _show_brain(truth, coarse, spacing, restored / name)
    if whole is not None:
        _show_head(whole, scans / "head_t1.nii.gz", restored / "head")


def _show_brain(truth: Volume, coarse: Volume, spacing: Sequence[float], result: Path) -> None:
    """Figures and pictures of what lies in the folder `result`."""
    pred, measured = read_volume(result / f"{result.name}_pred.nii.gz")[0].numpy(), torch.as_tensor(coarse)
    between = {
        "trilinear": F.interpolate(measured[None, None], scale_factor=4.0, mode="trilinear")[0, 0].numpy(),
        "cubic": cubic(measured, FACTORS).numpy(),
    }
    blocks = BlockAverage(FACTORS).repeat(measured).numpy()
    sides = f"voxels of {spacing[0] * FACTORS[0]:.2g} mm to {spacing[0]:.2g} mm"
    title = f"{'MNI152 T1' if result.name == 'mni152' else 'T1w brain'}, {sides}"
    names = _measured(title, {"input": blocks, **between, "restored": pred}, truth)
    shown = {names["input"]: blocks, names["cubic"]: between["cubic"], names["restored"]: pred, "truth": truth}
    extra = {"error": pred - truth}
    if (interval := result / f"{result.name}_interval.nii.gz").is_file():  # where a head for it lies beside the weights
        extra["interval\n80 % of errors are smaller"] = read_volume(interval)[0].numpy()
    pictures = [result.parents[1] / picture for picture in ("demo.png", "close_up.webp")]
    planes_figure({**shown, **extra}, pictures[0], f"{title}. {NOT_FOR_DIAGNOSIS}", spacing=spacing)
    close_up_figure(shown, pictures[1], f"{title}. {NOT_FOR_DIAGNOSIS}", spacing=spacing)
    print(f"look at {pictures[0]} and {pictures[1]}")


def _show_head(volume: MetaTensor, scan: Path, restored: Path) -> None:
    """Figures and a picture of thick slices, and of what became of them: voxels as fine as those within them."""
    from ..data.registration import resampled, unmoved  # here: SimpleITK takes a moment to import

    result, scanned = read_volume(restored / "head_pred.nii.gz"), AsScanned()
    image = LoadVolumesd(["image"], scanned)({"image": [scan]})["image"]
    operator, measured = scanned.of(image), image.as_tensor()[None]
    truth = resampled(volume, result, unmoved(), nearest=False)[0][0].numpy()
    scale = float(truth.max())
    between = {"input": operator.plain(measured), "cubic": operator.interpolate(measured)}
    shown = {name: restore_grid(values[0], image, fill=0.0)[0].numpy() / scale for name, values in between.items()}
    shown["restored"] = result[0].numpy() / scale
    spacing = _spacing(result)
    sides = " x ".join(f"{side:.2g}" for side in spacing)
    title = f"T1w of a whole head, slices of {min(_spacing(volume)) * THICK:.1f} mm to {sides} mm"
    names = _measured(title, shown, truth / scale)
    columns = {names[name]: values for name, values in shown.items()} | {"truth": truth / scale}
    picture = restored.parents[1] / "head.png"
    planes_figure(columns, picture, f"{title}. {NOT_FOR_DIAGNOSIS}", spacing=spacing)
    print(f"look at {picture}")


def _write_thick(volume: MetaTensor, path: Path) -> None:
    """Averages over `THICK` voxels, and the file of BIDS that says how thick the slices are."""
    voxels, affine = volume.as_tensor(), volume.affine.numpy()
    axis = int(np.argmin(_spacing(volume)))
    factors = (*(THICK if other == axis else 1 for other in range(3)),)
    thick = affine @ np.diag([*factors, 1.0])
    thick[:3, 3] += affine[:3, axis] * (THICK - 1) / 2
    whole = voxels.narrow(axis + 1, 0, voxels.shape[axis + 1] // THICK * THICK)
    write_volume(make_volume(BlockAverage(factors).measure(whole), thick, {}), path)
    write_json(path.parent / "head_t1.json", {"SliceThickness": THICK * _spacing(volume)[axis]})


def _spacing(volume: MetaTensor) -> list[float]:
    """Sides of its voxels in mm."""
    return np.linalg.norm(volume.affine[:3, :3].numpy(), axis=0).tolist()


def _measured(title: str, volumes: Mapping[str, Volume], truth: Volume) -> dict[str, str]:
    """Prints PSNR and SSIM of volumes in [0, 1]; their names with these below."""
    print(f"{title}\n{'':12}{'PSNR':>8}{'SSIM':>8}")
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # more would only fetch more pages
        figures = pool.map(lambda volume: (psnr(volume, truth), ssim(volume, truth)), volumes.values())
        named = {}
        for name, (decibels, similarity) in zip(volumes, figures, strict=True):
            print(f"{name:12}{decibels:8.2f}{similarity:8.4f}")
            named[name] = f"{name}\n{decibels:.1f} dB, SSIM {similarity:.3f}"
    return named


def _write_input(folder: Path, name: str, source: str | None) -> tuple[Volume, Volume, list[float]]:
    """Truth (H, W, D) in [0, 1] and its measurement, both also written as NIfTI; mm of the truth's voxels."""
    from nilearn.datasets import load_mni152_template  # here, because it takes seconds to import

    folder.mkdir(parents=True, exist_ok=True)
    template = folder / "truth.nii.gz"
    if source is None:
        nib.save(load_mni152_template(resolution=1), template)
    volume = read_volume(source or template)
    truth = pad_to_multiple(volume.as_tensor(), FACTORS)
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    coarse = BlockAverage(FACTORS).measure(truth)
    centre = np.diag([*FACTORS, 1.0])
    centre[:3, 3] = (np.array(FACTORS) - 1) / 2
    affine = volume.affine.numpy()
    write_volume(make_volume(truth, affine, {}), template)
    write_volume(make_volume(coarse, affine @ centre, {}), folder / "low_resolution" / f"{name}_t1.nii.gz")
    return truth[0].numpy(), coarse[0].numpy(), _spacing(volume)
