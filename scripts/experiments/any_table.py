# SPDX-License-Identifier: Apache-2.0
"""What task any gains over interpolation, by contrast, thickness and skull: `python -m scripts.experiments.any_table DATA`."""

import argparse
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose

from ..data.cases import find_cases, first
from ..data.grid import crop_box
from ..evaluation.metrics import psnr
from ..files import write_json
from ..inferers.devices import device_name
from ..running.workflow import config_files, load_config, task_config
from ..tables.significance import bootstrap_interval
from .rivals import interpolations

FOLDERS = (
    ("T1w brains, 1 mm", "t1", "t1"), ("T1w whole heads, 1.3 mm", "whole_head", "t1"),
    ("FLAIR, gliomas, 2 mm", "glioma", "flair"), ("T1ce, gliomas, 2 mm", "glioma", "t1ce"),
)  # fmt: skip
MEASURED: Mapping[str, dict[str, Any]] = {
    "4 x 4 x 4": {"simulated": [4, 4, 4]},
    "1 x 1 x 4": {"simulated": [1, 1, 4]},
    "1 x 1 x 6.5, gap 20 %": {"simulated": [1, 1, 6.5], "gap": 0.2},
}
WHOLE = {"4 x 4 x 4": "super_resolution", "1 x 1 x 4": "super_resolution_thick_slice"}  # what specialists do


class System:
    """A task and its weights, or without them its best floor, cubic interpolation with the measurement kept.

    options: ids of `evaluate.yaml`.
    """

    def __init__(self, task: str, *, floor: bool = False, **options: Any) -> None:
        config = load_config(config_files("evaluate", [task_config(task)]), options)
        load, *_, crop = config.get_parsed_content("preprocessing").transforms
        self.read, self.inferer = Compose([load, crop]), config.get_parsed_content("inferer")
        self.network = None if floor else config.get_parsed_content("network").eval()
        if floor:
            self.inferer = interpolations(config.get_parsed_content("degradation"))["cubic, consistent"]

    def __call__(self, case: Mapping[str, Any]) -> float:
        """PSNR in dB, of the truth's range, over the whole field."""
        data = self.read(dict(case))
        image, truth = data["image"], np.asarray(data["label"][0])
        result = np.full(truth.shape, float(image.meta.get("background", image[0].min())), dtype=np.float32)
        part = self.inferer(image[None], self.network)[0, 0].numpy()
        result[crop_box(image)] = part
        low, high = truth.min(), truth.max()
        return psnr((result - low) / (high - low), (truth - low) / (high - low))


def rows(data: Path, weights: str, most: int | None, adapt: float) -> Iterator[dict[str, Any]]:
    """One for every kind of volume and measurement: PSNR of every case by every system."""
    for title, folder, modality in FOLDERS:
        cases = first(find_cases(data / folder, [modality], target=modality, split="val"), most)
        for measured, options in MEASURED.items():
            both = {"conditions": [modality], "target": modality, "specialists": None, **options}
            systems = {"cubic": System("any", floor=True, **both), "any": System("any", ckpt_path=weights, **both)}
            if adapt:
                systems["adapted"] = System("any", ckpt_path=weights, adapt=adapt, **both)
            if measured in WHOLE:
                systems["specialist"] = System(WHOLE[measured], conditions=[modality], target=modality)
            start = time.monotonic()
            values = {name: [system(case) for case in cases] for name, system in systems.items()}
            yield {"volumes": title, "measured": measured, "seconds": time.monotonic() - start, "psnr": values}


def line_of(row: Mapping[str, Any]) -> str:
    """A line of the table: PSNR of interpolation, gains over it with 95 % intervals."""
    cubic = np.array(row["psnr"]["cubic"])
    cells = [row["volumes"], row["measured"], str(len(cubic)), f"{cubic.mean():.2f}"]
    for name in ("any", "adapted", "specialist"):
        if name in row["psnr"]:
            gain = np.array(row["psnr"][name]) - cubic
            low, high = bootstrap_interval(gain)
            cells.append(f"{gain.mean():+.2f} ({low:+.2f} to {high:+.2f})")
        else:
            cells.append("")
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write all figures to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="models/any.pt")
    parser.add_argument("--max-cases", type=int)
    parser.add_argument("--adapt", type=float, default=0.0)
    parser.add_argument("--json", type=Path, default=Path("any_table.json"))
    given = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    print(device_name(torch.device("cpu")))
    print("| volumes | measured | n | cubic, kept (dB) | any | adapted | specialist |\n|---|---|---|---|---|---|---|")
    table = []
    for row in rows(given.data, given.weights, given.max_cases, given.adapt):
        table.append(row)
        print(line_of(row), flush=True)
        write_json(given.json, {"rows": json.loads(json.dumps(table))})


if __name__ == "__main__":
    main()
