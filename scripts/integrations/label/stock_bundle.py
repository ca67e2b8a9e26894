# SPDX-License-Identifier: Apache-2.0
"""A copy of this bundle for programs that read `inference.yaml`, `train.yaml` and `models/model.pt` alone, without overlays."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from ...bundle import bundle_root
from ...errors import BadInput, exit_code
from ...networks.weights import load_weights
from ...running.workflow import config_file

ROOT = Path(bundle_root())
WORKFLOWS = ("inference", "train")
MODEL = "model"


def stock_bundle(folder: Path, overlays: Sequence[str], weights: Path | None = None) -> None:
    """Write the bundle into a new folder, with the overlays merged into its workflows and the weights as `models/model.pt`.

    overlays: files of `configs`, such as `task_translation.yaml`; weights: instead of those that the overlays name.
    Raises BadInput, and writes nothing, when the folder exists, an overlay is missing, or the weights are or do not fit.
    """
    if folder.exists():
        raise BadInput(f"{folder}: exists already; give a new folder")
    files = list(map(config_file, overlays))
    parsers = {name: ConfigParser() for name in WORKFLOWS}
    for name, parser in parsers.items():
        parser.read_config([str(config_file(name)), *map(str, files)])
    source = weights or Path(parsers["inference"].get_parsed_content("ckpt_path"))
    load_weights(parsers["inference"].get_parsed_content("network_def"), source)  # the stock app would take any in silence
    parsers["train"]["plane_weights"] = f"$@bundle_root + '/models/{MODEL}.pt'"
    for name, parser in parsers.items():
        parser["model_name"] = MODEL
        parser["_desc_"] = " with ".join([f"{name}.yaml", *overlays])
    _write(folder, parsers, source)


def _write(folder: Path, parsers: dict[str, ConfigParser], weights: Path) -> None:
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    for name, parser in parsers.items():
        ConfigParser.export_config_file(parser.get(), str(folder / "configs" / f"{name}.yaml"), fmt="yaml")
    for name in ("metadata.json", "configs/metadata.json", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(weights, folder / "models" / f"{MODEL}.pt")
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__", "integrations"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Bad input is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m scripts.integrations.label.stock_bundle", description=__doc__)
    parser.add_argument("folder", type=Path, help="to be made; its name becomes the model's")
    parser.add_argument("overlays", nargs="+", help="files of configs, such as task_translation.yaml")
    parser.add_argument("--weights", type=Path, help="default: those that the overlays name")
    options = parser.parse_args(arguments)
    return exit_code(lambda: stock_bundle(options.folder, options.overlays, options.weights))


if __name__ == "__main__":
    sys.exit(main())
