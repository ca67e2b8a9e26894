# SPDX-License-Identifier: Apache-2.0
"""The first thing every run does: refuse overlays that change nothing, and turn bad input into one line."""

from __future__ import annotations

import ast
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser

from ..data.write import check_output_dir
from ..errors import BadInput, root_cause

# Options of `monai.bundle run` itself; every other `--key` overrides the config.
RUN_OPTIONS = {
    "args_file", "config_file", "final_id", "init_id", "logging_file", "meta_file", "run_id", "tracking", "workflow_type",
}  # fmt: skip


def preflight(arguments: Sequence[str] | None = None, *, output_dir: str | None = None) -> None:
    """Check the command line of `monai.bundle run` and make `BadInput` end a run with its line alone, exit code 1.

    output_dir: where the run will write, if it does. Raises BadInput when it cannot, and for a key, in an overlay or on the
    command line, that the first config file does not have: such a key would change nothing in silence.
    """
    sys.excepthook = _one_line
    logging.getLogger("monai.handlers.StatsHandler").addFilter(_without_traceback)
    if output_dir is not None:
        check_output_dir(output_dir)
    options = _options(sys.argv[1:] if arguments is None else arguments)
    named = options.pop("config_file", None)
    if named is None:
        return
    files = ast.literal_eval(named) if named.startswith(("[", "(")) else named.split(",")
    base = ConfigParser.load_config_file(files[0])
    for file in files[1:]:
        check_keys(ConfigParser.load_config_file(file), base, Path(file).name, files[0])
    overrides = {key: value for key, value in options.items() if key not in RUN_OPTIONS}
    check_keys(overrides, base, "the command line", files[0])
    for key, value in overrides.items():
        if isinstance(base.get(key), bool) and value not in ("True", "False"):  # any other text would count as true
            raise BadInput(f"the command line: --{key} {value} is neither True nor False; write it with a capital")


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value` pairs."""
    options: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        if argument.startswith("--"):
            key, _, value = argument[2:].partition("=")
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            options[key] = value or following
    return options


def check_keys(changes: Mapping[str, Any], base: Mapping[str, Any], source: str, base_name: str) -> None:
    """Raise BadInput for a key, `a#b` for a nested one, that the config `base` does not have; it would change nothing."""
    for key in changes:
        if not key.startswith("_") and not _has(base, key.lstrip("+").split("#")):
            raise BadInput(f"{source}: '{key}' is not in {Path(base_name).name}; correct the name (docs/configs.md lists them)")


def _has(config: Any, path: Sequence[str]) -> bool:
    for part in path:
        if isinstance(config, Sequence) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping) and part in config:
            config = config[part]
        else:
            return False
    return True


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = root_cause(error)
    if cause is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {cause}", file=sys.stderr)


def _without_traceback(record: logging.LogRecord) -> bool:
    """MONAI's handlers log whatever ends an engine with its traceback; bad input is named in one line, once."""
    if record.exc_info and root_cause(record.exc_info[1]):
        record.exc_info = None
    return True
