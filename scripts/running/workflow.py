# SPDX-License-Identifier: Apache-2.0
"""Workflows of the bundle from Python: its config files by name, checked, and run as `monai.bundle run` runs them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from ..bundle import bundle_root
from ..errors import BadInput
from .checks import PREFLIGHT, check_changes, config_of

PACKAGE, CONFIGS = __name__.split(".")[0], "scripts."  # what this package is called here, and in configs


def config_file(name: str | Path) -> Path:
    """A file of `configs` by its name, with its ending or not, or any file by its path. Raises BadInput when there is none."""
    configs = Path(bundle_root(), "configs")
    found = [path for path in (configs / f"{name}.yaml", Path(name).expanduser(), configs / name) if path.is_file()]
    if not found:
        raise BadInput(f"{name}: there is no such config; docs/configs.md lists them")
    return found[0]


def task_configs() -> dict[str, Path]:
    """Every configs/task_NAME.yaml by its NAME, in order."""
    return {file.stem.removeprefix("task_"): file for file in sorted(Path(bundle_root(), "configs").glob("task_*.yaml"))}


def task_config(task: str) -> Path:
    """configs/task_NAME.yaml by its NAME, or a file. Raises BadInput that lists the names when there is neither."""
    if (path := Path(task).expanduser()).suffix == ".yaml" and path.is_file():
        return path
    if task not in (known := task_configs()):
        raise BadInput(f"no task '{task}'; choose one of {', '.join(known)}, or give a file")
    return known[task]


def config_files(workflow: str, overlays: Sequence[str | Path] = ()) -> list[Path]:
    """The files of a workflow in the order of their precedence: what it goes over, itself, then the overlays."""
    file = config_file(workflow)
    base = config_of(file)[PREFLIGHT].get("base")
    below = config_files(base.removesuffix(".yaml")) if base else []
    return [*below, file, *map(config_file, overlays)]


def load_config(files: Sequence[Path], options: Mapping[str, Any] | None = None, *, logs: bool = True) -> ConfigParser:
    """The merged config with `options` (values by id) in place; logs: whether it says from now on how this process logs.

    Raises BadInput for what `check_changes` refuses.
    """
    return _workflow(files, options or {}, **({} if logs else {"logging_file": False})).parser


def run_workflow(
    workflow: str, overlays: Sequence[str | Path] = (), *, run_id: str, change: Callable[[ConfigParser], None] | None = None,
    **options: Any,
) -> None:  # fmt: skip
    """Run a workflow of `configs` in this process.

    overlays: names or paths of config files; run_id: as `monai.bundle run` has it; options: values by id, nested ones as a#b;
    change: called with the config before anything of it is built.
    Raises BadInput for an unknown file or id, and SystemExit as the workflow does.
    """
    prepared = _workflow(config_files(workflow, overlays), options, run_id=run_id)
    if change is not None:
        change(prepared.parser)
    prepared.initialize()
    prepared.run()
    prepared.finalize()


def _workflow(files: Sequence[Path], options: Mapping[str, Any], **ids: Any) -> ConfigWorkflow:
    given = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    check_changes(files, given, "options")
    given[f"{PREFLIGHT}#arguments"] = []  # they were checked here, and this process' own are not the workflow's
    # Which greets with how it logs, or warns that it does not say how.
    logging.getLogger(ConfigWorkflow.__module__).setLevel(logging.ERROR if "logging_file" in ids else logging.WARNING)
    workflow = ConfigWorkflow([str(file) for file in files], workflow_type=None, **ids, **given)
    if not CONFIGS.startswith(f"{PACKAGE}."):
        workflow.parser.set(_renamed(workflow.parser.get()))
    return workflow


def _renamed(config: Any) -> Any:
    """An installed package has a name of its own: `scripts` is anybody's."""
    if isinstance(config, Mapping):
        return {key: _renamed(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_renamed(value) for value in config]
    return f"{PACKAGE}.{config.removeprefix(CONFIGS)}" if isinstance(config, str) and config.startswith(CONFIGS) else config
