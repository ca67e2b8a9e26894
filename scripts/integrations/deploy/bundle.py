# SPDX-License-Identifier: Apache-2.0
"""The bundle's own inference as steps that an application can put between its operators; knows no SDK."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from monai.bundle import ConfigParser

from ...data.cases import folder_of
from ...data.folder import files_below, is_dicom
from ...data.write import check_output_dir
from ...errors import BadInput, one_line
from ...running.checks import check_keys
from ...running.steps import Steps
from ...running.workflow import config_file

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
    Raises BadInput when the output cannot be written, the settings cannot be read, a config or an option is not the bundle's,
    or the weights are not there.
    """

    def __init__(self, settings: str | Path, *, input_dir: str | Path, output_dir: str | Path, models: str | Path) -> None:
        check_output_dir(output_dir)
        configs, chosen = _chosen(Path(settings))
        self.parser = ConfigParser()
        self.parser.read_config([str(config) for config in configs])
        options = {"dataset_dir": str(input_dir), "output_dir": str(output_dir), **chosen}  # the SDK gives paths
        check_keys(options, self.parser.get(), Path(settings).name, configs[0].name)
        options.setdefault("ckpt_path", _weights(Path(models), options.get("model_name", self.parser["model_name"])))
        self.parser.update(options)

    def cases(self) -> list[Case]:
        """Every case of the input, its series chosen by rules, nothing read yet.

        Raises BadInput where volume files lie beside DICOM, which would stay unanswered in silence.
        """
        cases = [Case(entry["case"], entry) for entry in self.parser.get_parsed_content("dataset#data")]
        root = folder_of(self.parser["dataset_dir"])
        volume = next((one for case in cases for one in case.data["image"] if isinstance(one, str)), None)
        if volume and any(map(is_dicom, files_below(root))):
            fact = f"{Path(volume).name} and its like would be taken in place of the DICOM beside them"
            raise BadInput(f"{root}: {fact}; move them away, or give a folder of DICOM alone")
        return cases

    @property
    def steps(self) -> dict[str, Step]:
        """In order: a volume from series, its translation in float32, and the derived series from that."""
        steps = Steps(self.parser)
        work = {"series_to_volume": steps.read, "bundle_inference": steps.translate, "derived_series_writer": steps.write}

        def step(function: Callable[[dict[str, Any]], dict[str, Any]]) -> Step:
            return lambda case: Case(case.name, function(case.data))

        return {name: step(function) for name, function in work.items()}


def _chosen(settings: Path) -> tuple[list[Path], dict[str, Any]]:
    """Config files and options."""
    try:
        bundle = yaml.safe_load(settings.read_text(encoding="utf-8"))["bundle"]
        names, options = list(bundle["configs"]), dict(bundle.get("options") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise BadInput(f"{settings}: holds no settings of the bundle ({one_line(error)}); see docs/deploy.md") from error
    return [config_file(name) for name in names], options


def _weights(models: Path, name: str) -> str:
    if models.is_file():
        return str(models)
    found = sorted(models.rglob(f"{name}.pt"))
    if not found:
        raise BadInput(f"{models}: there is no {name}.pt in it; give the bundle's models folder with -m")
    return str(found[0])
