# SPDX-License-Identifier: Apache-2.0
"""What weights have seen, measured from the volumes they were trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.meta_tensors import grid_of
from ..data.random_scans import PrepareScand, drawn_whole, scans_of
from ..data.seen import Vector, channel_properties, properties, write_seen
from ..data.volumes import read_volume
from ..errors import BadInput
from ..running.commands import setting
from ..running.workflow import config_files, load_config, task_config

DRAWS = 5  # scans of every volume of a datalist


def seen(
    dataset_dir: str, weights: str, *, task: str = "super_resolution", split: str = "train", overlays: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write beside weights, as NAME.seen.json, which volumes they were trained on; inference doubts others (docs/any_scan.md).

    dataset_dir, split: these volumes; or the JSON file of `score-fusion scans`, of whose volumes scans are drawn. task: as the
    weights were trained for; overlays, settings: as for `restore`, such as simulated=[1,1,5] where a task has no measurement of
    its own. Raises BadInput for fewer than ten volumes or no such weights.
    """
    if not Path(weights).expanduser().is_file():
        raise BadInput(f"{weights}: no such weights file; give the one that inference will read")
    if dataset_dir.endswith(".json"):
        return _written(weights, task, {"the scan": _drawn(dataset_dir)})
    options = {"dataset_dir": dataset_dir, "split": split, **dict(map(setting, settings))}
    config = load_config(config_files("evaluate", [task_config(task), *overlays]), options)
    load, degradation = (config.get_parsed_content(name) for name in ("preprocessing#transforms#0", "degradation"))
    cases = config.get_parsed_content("cases")
    found = np.array([channel_properties(load(dict(case))["image"], degradation) for case in cases])
    return _written(weights, task, dict(zip(_names(config["conditions"], found.shape[1]), found.swapaxes(0, 1), strict=True)))


def _written(weights: str, task: str, samples: Mapping[str, Vector]) -> Path:
    written = write_seen(weights, task, samples)
    print(f"{written}: {len(next(iter(samples.values())))} volumes")
    return written


def _drawn(datalist: str) -> Vector:
    """Properties (n, properties) of whole scans, drawn as those of the training are."""
    prepare, found = PrepareScand(), []
    entries = {entry["image"]: entry for entry in scans_of(datalist)}  # each once, however often it is listed
    for number, entry in enumerate(entries.values()):
        case, spacing = prepare(entry), grid_of(read_volume(entry["image"])).spacing
        for draw in range(DRAWS):
            scan = drawn_whole(case["image"], case["label"], np.random.default_rng((number, draw)))
            found.append(properties(scan.numpy(), spacing))
    return np.array(found)


def _names(conditions: Sequence[str], channels: int) -> list[str]:
    """Of the channels: several scans of one measurement are one."""
    return [conditions[0], *conditions[len(conditions) - channels + 1 :]]
