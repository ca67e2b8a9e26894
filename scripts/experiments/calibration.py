# SPDX-License-Identifier: Apache-2.0
"""Weights made ready for 8-bit integers: the ranges of their convolutions, and what integers cost in quality."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..data.cases import ERROR
from ..data.grid import crop_box
from ..errors import BadInput
from ..evaluation.metrics import psnr
from ..evaluation.scaling import ScaleToTruthd
from ..inferers import FusedScoreInferer
from ..inferers.backend import relative_difference
from ..networks.engine import compile_unets, has_openvino, release_unets
from ..networks.quantization import Ranges, attach_ranges, observed, ranges_file, read_ranges, write_ranges
from ..running.commands import setting
from ..running.workflow import config_files, load_config, task_config

STEPS = (1, 4)  # of the sampler: at one step all is asked at gamma = 0
CROP = 32  # voxels a side of what convolutions are compared on
SPARED = 0.25  # share of the convolutions that go back to floating point together


def calibrate(
    dataset_dir: str, weights: str, *, task: str = "super_resolution", cases: int = 2, tolerance: float = 0.05,
    max_cases: int | None = None, overlays: Sequence[str] = (), settings: Sequence[str] = (),
) -> Ranges:  # fmt: skip
    """Write the ranges of the convolutions of a weights file beside it, as WEIGHTS.int8.json.

    dataset_dir: folder with a train and a val split; cases: of the train split, whose ranges are taken; max_cases: of the val
    split, on which the mean PSNR may fall by `tolerance` dB at most: until it does, a quarter of the convolutions, those
    that change the answer most, are left in floating point. settings: KEY=VALUE, ids of the configs. Prints what it found.
    Raises BadInput where OpenVINO is not installed, or a case cannot be read.
    """
    if not has_openvino():
        raise BadInput("calibrate: OpenVINO is not there; pip install openvino")
    try:
        read_ranges(Path(weights))
    except BadInput:  # of other weights, or damaged: they are what is made anew
        ranges_file(Path(weights)).unlink()
    workflow = config_files("evaluate", [task_config(task), *overlays])
    # These weights are asked, whatever others saw such scans.
    options = {"dataset_dir": dataset_dir, "ckpt_path": weights, "specialists": None, **dict(map(setting, settings))}
    network = load_config(workflow, options).get_parsed_content("network").eval()
    train, val = (
        _volumes(workflow, {**options, "split": split}, most) for split, most in (("train", cases), ("val", max_cases))
    )
    if not (ranges := _observed(workflow, options, network, [image for image, _ in train])):
        raise BadInput(f"{weights}: no convolution of it was asked for any case; let it answer (--set specialists=null)")
    floating = _quality(_inferer(workflow, options, backend="torch", precision="float32"), network, val)
    while True:
        attach_ranges(network, ranges)
        inferer = _inferer(workflow, options, backend="openvino")
        loss = floating - _quality(inferer, network, val)
        print(f"{len(ranges)} convolutions in integers: {loss:+.3f} dB below {floating:.2f} dB in float32, n = {len(val)}")
        if (loss <= tolerance and inferer.numbers == "int8") or not ranges:  # else floats were taken in their place
            break
        ranges = _without_the_worst(_inferer(workflow, options), network, train[0][0], ranges)
    print(f"ranges: {write_ranges(weights, ranges)}")
    return ranges


def _inferer(workflow: Any, options: dict[str, Any], **more: Any) -> FusedScoreInferer:
    return cast(FusedScoreInferer, load_config(workflow, {**options, **more}).get_parsed_content("inferer"))


def _volumes(workflow: Any, options: dict[str, Any], most: int | None) -> list[tuple[Tensor, Tensor]]:
    """Inputs (1, C, H, W, D) and their truths (H, W, D), of a split."""
    dataset = load_config(workflow, {**options, "max_cases": most}).get_parsed_content("dataset")
    cases = [dataset[index] for index in range(len(dataset))]
    for case in cases:
        if ERROR in case:
            raise BadInput(f"case {case['case']}: {case[ERROR]}")
    return [(case["image"][None], case["label"].as_tensor()[0][crop_box(case["image"])]) for case in cases]


@torch.no_grad()
def _observed(workflow: Any, options: dict[str, Any], network: nn.Module, images: Sequence[Tensor]) -> Ranges:
    with observed(network) as ranges:
        for steps in STEPS:
            inferer = _inferer(workflow, options, backend="torch", steps=steps)
            for image in images:
                inferer(image, network)
    return dict(ranges)


def _quality(inferer: FusedScoreInferer, network: nn.Module, volumes: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Mean PSNR, on the scale of the truth, over the part that was computed."""
    values, to_truth = [], ScaleToTruthd(inferer.degradation)
    for image, truth in volumes:
        scaled = to_truth({"pred": inferer(image, network)[0], "label": truth[None]})
        values.append(psnr(*(scaled[key][0].numpy() for key in ("pred", "label"))))
    return float(np.mean(values))


@torch.no_grad()
def _without_the_worst(inferer: FusedScoreInferer, network: nn.Module, image: Tensor, ranges: Ranges) -> Ranges:
    """The ranges but for those whose convolution alone, in integers, changes the answer most."""
    x = inferer.middle(image.as_subclass(Tensor), inferer.measured_by(image), CROP)
    release_unets(network)
    wanted, differences = network(x), {}
    for name, bound in ranges.items():
        compile_unets(network, {name: bound}, half=False)
        differences[name] = relative_difference(network(x), wanted)
    release_unets(network)
    worst = sorted(differences, key=differences.__getitem__, reverse=True)[: max(int(SPARED * len(ranges)), 1)]
    return {name: bound for name, bound in ranges.items() if name not in worst}
