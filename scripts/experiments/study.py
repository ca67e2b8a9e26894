# SPDX-License-Identifier: Apache-2.0
"""Studies go on where they stopped: every run of a workflow in them is known by what it was made from."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from ..data import find_cases
from ..data.contents import checksums, content_of
from ..data.write import check_output_dir
from ..errors import BadInput
from ..files import read_json, write_json
from ..running.checks import check_changes
from ..running.workflow import config_files, run_workflow

RECORD, REMEDY = "stage.json", "give --output another folder"
FAILED = (1, 2)  # exit codes of a run in which all cases failed, or some
Origin = dict[str, dict[str, str]]  # "setting", "case" and "weights": values or checksums by name


class Stage(NamedTuple):
    """One run of a workflow. folder: its own, within the study; overlays: names or paths; options: values by id that make it
    what it is; weights: the files that it starts from, by any name; told: gives, when it runs, options that do not tell it from
    others, such as places.
    """

    folder: str
    workflow: str
    overlays: Sequence[str] = ()
    options: Mapping[str, Any] = {}
    weights: Mapping[str, Path] = {}
    told: Callable[[], Mapping[str, Any]] = dict

    @property
    def trains(self) -> bool:
        """Whether it is a training, which goes on from what it left when it was killed, and no evaluation."""
        return self.workflow.startswith("train")


class Study:
    """Trainings and evaluations of one data set in one folder, each done once.

    Each leaves `stage.json`: its settings (configs merged, options in place), and checksums of its cases and weights wherever
    they lie. What was made from something else is neither taken nor overwritten. What was killed, and an evaluation in which
    a case failed, runs again.
    """

    def __init__(self, folder: str | Path, dataset_dir: str | Path) -> None:
        check_output_dir(folder)
        self.folder, self.dataset_dir = Path(folder).expanduser(), str(Path(dataset_dir).expanduser().resolve())
        self._cases = cache(_cases)  # once a study: to find them among much DICOM takes minutes

    def check(self, stages: Iterable[Stage]) -> None:
        """Raise BadInput, before any of them runs, for options that none have and for what was made from something else."""
        for stage in stages:
            self._complete(stage, self._settings_and_cases(stage))

    def run(self, stage: Stage) -> Path:
        """The file that a stage leaves; the stage runs unless it is complete. Raises BadInput as `check`."""
        origin = self._settings_and_cases(stage)
        origin["weights"] = {name: content_of(file) for name, file in stage.weights.items()}
        if not self._complete(stage, origin):
            print(f"running {stage.folder}", flush=True)
            folder = self.folder / stage.folder
            write_json(folder / RECORD, {"complete": False, **origin})
            run_id, place = ("training", "ckpt_dir") if stage.trains else ("evaluating", "output_dir")
            options = {**stage.options, **stage.told(), "dataset_dir": self.dataset_dir, place: folder}
            with failures_in_results():
                run_workflow(stage.workflow, stage.overlays, run_id=run_id, **options)
                write_json(folder / RECORD, {"complete": True, **origin})
        return self._product(stage)

    def _product(self, stage: Stage) -> Path:
        return self.folder / stage.folder / ("latest.pt" if stage.trains else "results.json")

    def _settings_and_cases(self, stage: Stage) -> Origin:
        files = config_files(stage.workflow, stage.overlays)
        check_changes(files, stage.options, "--options")
        parser = ConfigParser(ConfigParser.load_config_files(list(map(str, files))))
        parser.update(dict(stage.options))
        parser.parse()  # gives every nested value an id
        items: dict[str, Any] = {key.replace("::", "#"): item.config for key, item in parser.ref_resolver.items.items()}
        settings = {key: str(value) for key, value in items.items() if key[:1] != "_" and not isinstance(value, dict | list)}
        parser["dataset_dir"] = self.dataset_dir
        parser["ckpt_dir" if stage.trains else "output_dir"] = str(self.folder)  # one list of identifiers for all
        asked = parser.get_parsed_content("train#cases" if stage.trains else "cases", instantiate=False).get_config()
        most = None if stage.trains else parser.get_parsed_content("max_cases")
        return {"setting": settings, "case": self._cases(json.dumps(asked), most)}

    def _complete(self, stage: Stage, origin: Origin) -> bool:
        """Whether a stage was made from this and is complete. Raises BadInput when a run would replace something else."""
        folder, left = self.folder / stage.folder, self._product(stage).is_file()
        if not (folder / RECORD).is_file():
            if left:
                raise BadInput(f"{folder}: no {RECORD} says what this was made from (0.6 wrote none); {REMEDY}")
            return False
        before = read_json(folder / RECORD, REMEDY)
        complete = left and before.get("complete") is True
        for kind, values in origin.items() if complete or (left and stage.trains) else ():
            old = before.get(kind, {})
            for key in {**values, **old}:
                if (was := old.get(key, "nothing")) != (now := values.get(key, "nothing")):
                    raise BadInput(f"{folder}: was made with {kind} {key} = {was}, not {now}; {REMEDY}")
        return complete


@contextmanager
def failures_in_results() -> Iterator[None]:
    """What is within ends where cases failed, as the results say, and the study goes on; one that is stopped does not."""
    try:
        yield
    except SystemExit as ended:
        if ended.code not in FAILED:
            raise


def _cases(asked: str, most: int | None) -> dict[str, str]:
    """Checksums by case of what its files hold, wherever they lie. asked: of `find_cases`, as JSON; most: the first so many."""
    return checksums(find_cases(**{key: value for key, value in json.loads(asked).items() if key != "_target_"})[:most])
