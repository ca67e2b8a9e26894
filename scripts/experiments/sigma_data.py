# SPDX-License-Identifier: Apache-2.0
"""What `sigma_data` of a new task is: how far the first condition lies from the target."""

import torch

from ..data.cases import first
from ..running.workflow import config_files, load_config, task_config


def sigma_data(dataset_dir: str, task: str, *, split: str = "train", max_cases: int | None = None) -> float:
    """Print and return the standard deviation of half the difference between target and first condition, inside the head.

    dataset_dir, split, max_cases: the cases; task: NAME of configs/task_NAME.yaml, or a file. Both volumes are as networks see
    them in training (`PrepareTrainingd`), about [-1, 1]; the head is where the mask says. Every case counts alike: the root of
    the mean of their variances. Raises BadInput when no case is there or no such task.
    """
    files = config_files("train_3d", [task_config(task)])
    config = load_config(files, {"dataset_dir": dataset_dir, "split_train": split})
    cases = first(config.get_parsed_content("train#cases"), max_cases)
    prepare = config.get_parsed_content("train#preprocessing")
    variances = []
    for case in cases:
        prepared = prepare(dict(case))
        image, label = prepared["image"], prepared["label"]
        variances.append((label[0] - image[0])[image[-1] > 0].div(2).var())
    sigma = float(torch.stack(variances).mean().sqrt())
    print(f"sigma_data: {sigma:.3g}  # n = {len(cases)}")
    return sigma
