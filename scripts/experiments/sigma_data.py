# SPDX-License-Identifier: Apache-2.0
"""What `sigma_data` of a new task is: how far the first condition lies from the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from .. import bundle_root
from ..errors import BadInput


def sigma_data(
    dataset_dir: str, task_files: Sequence[str], *, split: str = "train", max_cases: int | None = None
) -> float:  # fmt: skip
    """Print and return the standard deviation of half the difference between target and first condition, inside the head.

    dataset_dir, split, max_cases: the cases; task_files: overlays, such as `configs/task_translation.yaml`. Both volumes are as
    networks see them in training (`PrepareTrainingd`), about [-1, 1]; the head is where the mask says. Every case counts alike:
    the root of the mean of their variances. Raises BadInput when no case is there or a file is missing.
    """
    for file in task_files:
        if not Path(file).is_file():
            raise BadInput(f"{file}: there is no such overlay; give a path such as configs/task_translation.yaml")
    parser = ConfigParser()
    parser.read_config([str(Path(bundle_root(), "configs", "train_3d.yaml")), *map(str, task_files)])
    parser.update({"dataset_dir": dataset_dir, "split_train": split})
    cases = parser.get_parsed_content("train#cases")[:max_cases]
    prepare = parser.get_parsed_content("train#preprocessing")
    variances = []
    for case in cases:
        prepared = prepare(dict(case))
        image, label = prepared["image"], prepared["label"]
        variances.append((label[0] - image[0])[image[-1] > 0].div(2).var())
    sigma = float(torch.stack(variances).mean().sqrt())
    print(f"sigma_data: {sigma:.3g}  # n = {len(cases)}")
    return sigma
