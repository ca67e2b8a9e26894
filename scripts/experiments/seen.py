# SPDX-License-Identifier: Apache-2.0
"""What weights have seen, measured from the volumes they were trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.seen import channel_properties, write_seen
from ..errors import BadInput
from ..running.commands import setting
from ..running.workflow import config_files, load_config, task_config


def seen(
    dataset_dir: str, weights: str, *, task: str = "super_resolution", split: str = "train", overlays: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write beside weights, as NAME.seen.json, which volumes they were trained on; inference doubts others (docs/any_scan.md).

    dataset_dir, split: these volumes; task: as the weights were trained for; overlays, settings: as for `restore`, such as
    simulated=[1,1,5] where a task has no measurement of its own. Raises BadInput for fewer than ten volumes or no such weights.
    """
    if not Path(weights).expanduser().is_file():
        raise BadInput(f"{weights}: no such weights file; give the one that inference will read")
    options = {"dataset_dir": dataset_dir, "split": split, **dict(map(setting, settings))}
    config = load_config(config_files("evaluate", [task_config(task), *overlays]), options)
    load, degradation = (config.get_parsed_content(name) for name in ("preprocessing#transforms#0", "degradation"))
    cases = config.get_parsed_content("cases")
    found = np.array([channel_properties(load(dict(case))["image"], degradation) for case in cases])
    written = write_seen(
        weights, task, dict(zip(_names(config["conditions"], found.shape[1]), found.swapaxes(0, 1), strict=True))
    )
    print(f"{written}: {len(found)} volumes")
    return written


def _names(conditions: Sequence[str], channels: int) -> list[str]:
    """Of the channels: several scans of one measurement are one."""
    return [conditions[0], *conditions[len(conditions) - channels + 1 :]]
