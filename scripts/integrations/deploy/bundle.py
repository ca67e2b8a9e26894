# SPDX-License-Identifier: Apache-2.0
"""The bundle's own inference as steps that an application can put between its operators; knows no SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from monai.bundle import ConfigParser

from ... import bundle_root
from ...data.write import check_output_dir
from ...errors import BadInput
from ...preflight import check_keys

SETTINGS = Path(__file__).with_name("app.yaml")


class Case(NamedTuple):
    """A case on its way: what a step takes and gives."""

    name: str
    data: dict[str, Any]


Step = Callable[[Case], Case]


class Bundle:
    """`inference.yaml` cut into steps.

    settings: YAML file whose `bundle` names config files and options, as app.yaml does; input_dir, output_dir: folders;
    models: folder in which `{model_name}.pt` lies, at any depth, or that file itself.
    Raises BadInput when the output cannot be written, an option is not in the configs, or the weights are not there.
    """

    def __init__(self, settings: str | Path, *, input_dir: str, output_dir: str, models: str) -> None:
        check_output_dir(output_dir)
        chosen = yaml.safe_load(Path(settings).read_text(encoding="utf-8"))["bundle"]
        self.parser = ConfigParser()
        self.parser.read_config([str(Path(bundle_root(), "configs", name)) for name in chosen["configs"]])
        options = {"dataset_dir": input_dir, "output_dir": output_dir, **chosen["options"]}
        check_keys(options, self.parser.get(), "app.yaml", chosen["configs"][0])
        options.setdefault("ckpt_path", _weights(Path(models), options.get("model_name", self.parser["model_name"])))
        self.parser.update(options)

    def cases(self) -> list[Case]:
        """Every case of the input, its series chosen by rules, nothing read yet."""
        return [Case(entry["case"], entry) for entry in self.parser.get_parsed_content("dataset#data")]

    @property
    def steps(self) -> dict[str, Step]:
        """In order: a volume from series, its translation in float32, and the derived series from that."""
        content = self.parser.get_parsed_content
        device, inferer = content("device"), content("inferer")
        network = content("network").to(device)
        read, write = content("preprocessing"), content("postprocessing")

        def translate(case: Case) -> Case:
            pred = inferer(case.data["image"][None].to(device), network, case=case.name)[0]
            return Case(case.name, {**case.data, "pred": pred.cpu()})

        return {
            "series_to_volume": lambda case: Case(case.name, read(case.data)),
            "bundle_inference": translate,
            "derived_series_writer": lambda case: Case(case.name, write(case.data)),
        }


def _weights(models: Path, name: str) -> str:
    if models.is_file():
        return str(models)
    found = sorted(models.rglob(f"{name}.pt"))
    if not found:
        raise BadInput(f"{models}: there is no {name}.pt in it; give the bundle's models folder with -m")
    return str(found[0])
