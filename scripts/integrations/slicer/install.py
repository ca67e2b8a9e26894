# SPDX-License-Identifier: Apache-2.0
"""Adds the bundle to the models of an installed SlicerModalityConverter (docs/slicer.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...bundle import bundle_root, task_configs
from ...errors import BadInput, exit_code
from ...files import read_json, write_json, write_text
from ...limits import limits_of
from ...measurement import Task
from ...running.workflow import config_files, load_config

ROOT = Path(bundle_root())
MODULE = "ScoreFusionModel"
KEY = "{task}_score_fusion"  # keys must not begin alike: the extension takes the first file that begins with one
ABOUT = (
    "2D diffusion models fused by a 3D network. <b>Synthetic; research use, not for diagnosis.{caveat}</b><br>"
    "<b>Input</b>: {conditions}, any size and voxel size; where the extension runs models in a process of its own, none."
    "<br><b>Output</b>: {target}{grid}.<br><b>How to cite:</b><br><cite>Zhu et al., Diff-Ensembler, 2025.</cite>"
)


def install(extension: Path) -> list[str]:
    """Copy the model class, say where the bundle is, and list every task that has weights to offer; returns the names.

    extension: the folder that holds ModalityConverter.py. Installing again replaces the earlier entries, under their keys.
    Raises BadInput, and writes nothing, when it is another folder or no task has weights.
    """
    listed = extension / "Resources" / "Models" / "metadata.json"
    classes = extension / "ModalityConverterLib" / "ModelsImpl"
    if not (listed.is_file() and classes.is_dir()):
        raise BadInput(f"{extension}: is not the module ModalityConverter; give the folder that holds ModalityConverter.py")
    places = {task: place for task, file in task_configs().items() if (place := _place(file)) is not None}
    if not places:
        raise BadInput(f"{ROOT / 'models'}: holds weights of no task with a single input; train or fetch them first")
    models = read_json(listed, "install the extension anew")
    ours = [key for key, entry in models.items() if entry.get("module_name") == MODULE]
    earlier = {_task_in(listed.parent / f"{key}.json"): key for key in ours}
    models = {key: entry for key, entry in models.items() if key not in ours}
    names = []
    for task, place in places.items():
        key, entry = earlier.get(task, KEY.format(task=task)), _entry(place)
        write_json(listed.parent / f"{key}.json", place)
        models[key] = entry
        names.append(entry["display_name"])
    write_text(classes / f"{MODULE}.py", Path(__file__).with_name(f"{MODULE}.py").read_text(encoding="utf-8"))
    write_json(listed, models)
    return names


def _task_in(file: Path) -> str:
    """The task that a "model file" of ours is for."""
    try:
        return Path(read_json(file)["configs"][-1]).stem.removeprefix("task_")
    except (BadInput, KeyError):
        return file.stem


def _place(task: Path) -> dict[str, Any] | None:
    """Where the bundle and its Python are, what the task is and what is wrong with its weights; None without weights to
    offer, or when one volume is not enough.
    """
    files = config_files("inference", [task])
    config = load_config(files)
    asked: Task = config.get_parsed_content("task")
    weights = Path(config.get_parsed_content("ckpt_path"))
    limits = limits_of(weights)
    if len(asked.conditions) > 1 or len(asked.scans) > 1 or not weights.is_file() or not limits.offered:
        return None
    place = {"python": sys.executable, "bundle": str(ROOT), "configs": list(map(str, files))}
    return {**place, "task": asked.content(), "caveat": limits.caveat}


def _entry(place: Mapping[str, Any]) -> dict[str, str]:
    task, caveat = Task.of(place), f" {place['caveat']}" if place["caveat"] else ""
    grid = f" on a grid {'x'.join(map(str, task.blocks[0]))} times as fine" if task.blocks else ""
    about = ABOUT.format(conditions=" and ".join(task.conditions), target=task.target, grid=grid, caveat=caveat)
    name = f"[Brain] Score-Fusion MRI {task.title}"
    return {"url": "", "display_name": name, "description": about, "module_name": MODULE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Bad input is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.integrations.slicer.install", description=__doc__)
    parser.add_argument("extension", type=Path, help="folder that holds ModalityConverter.py")
    extension = parser.parse_args(arguments).extension
    return exit_code(lambda: print(*(f"added {name}" for name in install(extension)), sep="\n"))


if __name__ == "__main__":
    sys.exit(main())
