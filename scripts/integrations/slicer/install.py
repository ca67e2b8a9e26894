# SPDX-License-Identifier: Apache-2.0
"""Adds the bundle to the models of an installed SlicerModalityConverter (docs/slicer.md)."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ... import bundle_root
from ...errors import BadInput, exit_code

ROOT = Path(bundle_root())
MODULE = "ScoreFusionModel"
# Keys must not begin alike: the extension takes the first file that begins with a key.
TASKS = {
    "score_fusion_super_resolution": ("super_resolution", "[Brain] Score-Fusion MRI-T1w 4x super-resolution"),
    "score_fusion_thick_slices": ("super_resolution_thick_slice", "[Brain] Score-Fusion MRI-T1w thick slices to isotropic"),
    "score_fusion_translation": ("translation", "[Brain] Score-Fusion MRI-T1ce to FLAIR"),
}
ABOUT = (
    "2D diffusion models fused by a 3D network. <b>Synthetic; research use, not for diagnosis.</b><br>"
    "<b>Input</b>: {conditions}, any size and voxel size; where the extension runs models in a process of its own, in axial "
    "orientation.<br><b>Output</b>: {target}{grid}.<br><b>How to cite:</b><br><cite>Zhu et al., Diff-Ensembler, 2025.</cite>"
)


def install(extension: Path) -> list[str]:
    """Copy the model class, say where the bundle is, and list every task that has weights; returns the listed names.

    extension: the folder that holds ModalityConverter.py. Installing again replaces the earlier entries.
    Raises BadInput, and writes nothing, when it is another folder or no task has weights.
    """
    listed = extension / "Resources" / "Models" / "metadata.json"
    classes = extension / "ModalityConverterLib" / "ModelsImpl"
    if not (listed.is_file() and classes.is_dir()):
        raise BadInput(f"{extension}: is not the module ModalityConverter; give the folder that holds ModalityConverter.py")
    places = {key: place for key, (task, _) in TASKS.items() if (place := _place(task)) is not None}
    if not places:
        raise BadInput(f"{ROOT / 'models'}: holds weights of no task with a single input; train or fetch them first")
    models = {key: entry for key, entry in json.loads(listed.read_text(encoding="utf-8")).items() if key not in TASKS}
    for key, place in places.items():
        (listed.parent / f"{key}.json").write_text(json.dumps(place, indent=2) + "\n", encoding="utf-8")
        models[key] = _entry(TASKS[key][1], place)
    shutil.copy(Path(__file__).with_name(f"{MODULE}.py"), classes)
    listed.write_text(json.dumps(models, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    return [str(models[key]["display_name"]) for key in places]


def _place(task: str) -> dict[str, Any] | None:
    """Where the bundle and its Python are, and what the task is; None without weights."""
    files = [str(ROOT / "configs" / name) for name in ("inference.yaml", f"task_{task}.yaml")]
    parser = ConfigParser()
    parser.read_config(files)
    if not Path(parser.get_parsed_content("ckpt_path")).is_file():
        return None
    facts = {key: parser[key] for key in ("conditions", "target", "block")}
    return {"python": sys.executable, "bundle": str(ROOT), "configs": files, **facts}


def _entry(name: str, place: dict[str, Any]) -> dict[str, str]:
    grid = "" if place["block"] == [1, 1, 1] else f" on a grid {'x'.join(map(str, place['block']))} times as fine"
    about = ABOUT.format(conditions=" and ".join(place["conditions"]), target=place["target"], grid=grid)
    return {"url": "", "display_name": name, "description": about, "module_name": MODULE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Bad input is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.integrations.slicer.install", description=__doc__)
    parser.add_argument("extension", type=Path, help="folder that holds ModalityConverter.py")
    extension = parser.parse_args(arguments).extension
    return exit_code(lambda: print(*(f"added {name}" for name in install(extension)), sep="\n"))


if __name__ == "__main__":
    sys.exit(main())
