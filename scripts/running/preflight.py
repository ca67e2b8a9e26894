# SPDX-License-Identifier: Apache-2.0
"""The first thing every run does: refuse what would change nothing, and turn bad input into one line."""

import ast
import logging
import os
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
PREFLIGHT = "preflight"  # the id that workflows have and overlays have not
OVER = "_over_"  # the workflow that an overlay is for, where its ids do not say it
WITHOUT = "_without_"  # ids of the base that a workflow over it does not use


def command_line() -> list[str]:
    """What this process was started with."""
    return sys.argv[1:]


def preflight(arguments: Sequence[str] = (), *, output_dir: str | None = None, base: str | None = None) -> None:
    """Check the command line of `monai.bundle run` and make `BadInput` end a run with its line alone, exit code 1.

    output_dir: where the run will write, if it does; base: the workflow that this one goes over. Raises BadInput when the
    folder cannot be written, and for what `check_changes` refuses.
    """
    sys.excepthook = _one_line
    logging.getLogger("monai.handlers.StatsHandler").addFilter(_without_traceback)
    if output_dir is not None:
        check_output_dir(output_dir)
    options = _options(arguments)
    if (named := options.pop("config_file", None)) is None:
        return
    files = list(ast.literal_eval(named)) if named.startswith(("[", "(")) else named.split(",")
    if base is not None and base not in [Path(file).name for file in files]:
        _restart([str(Path(files[0]).with_name(base)), *files], arguments, named)
    check_changes(files, {key: value for key, value in options.items() if key not in RUN_OPTIONS}, "the command line")


def check_changes(files: Sequence[str | Path], options: Mapping[str, Any], source: str) -> None:
    """Raise BadInput for a key, in an overlay or in `options`, that no workflow among the files has, and for a value that is no
    switch or number where one belongs: such a change would change nothing, or something else, in silence.
    """
    configs = {Path(file).name: ConfigParser.load_config_file(str(file)) for file in files}
    workflows = [str(file) for file in files if PREFLIGHT in configs[Path(file).name]]
    known = ConfigParser.load_config_files(workflows)
    for unused in (key for file in workflows for key in configs[Path(file).name].get(WITHOUT, [])):
        known.pop(unused)
    for name, config in configs.items():
        if config.get(OVER, name) not in configs:
            raise BadInput(f"{name}: changes {config[OVER]} alone; leave it out here")
        if PREFLIGHT not in config:
            check_keys(config, known, name, workflows[-1])
    check_keys(options, known, source, workflows[-1])
    for key, value in options.items():
        _check_value(key, value, ConfigParser(known).get(key), source)


def check_keys(changes: Mapping[str, Any], base: Mapping[str, Any], source: str, base_name: str) -> None:
    """Raise BadInput for a key, `a#b` for a nested one, that the config `base` does not have; it would change nothing."""
    for key in changes:
        if not key.startswith("_") and key.lstrip("+") not in ConfigParser(dict(base)):
            raise BadInput(f"{source}: '{key}' is not in {Path(base_name).name}; correct the name (docs/configs.md lists them)")


def _check_value(key: str, value: Any, default: Any, source: str) -> None:
    """Any text counts as true; and a word in place of a number would fail late, far from its cause."""
    if isinstance(default, bool) and str(value) not in ("True", "False"):
        raise BadInput(f"{source}: --{key} {value} is neither True nor False; write it with a capital")
    if isinstance(default, int | float) and not str(value).startswith(("$", "@")):
        try:
            float(value)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{source}: --{key} {value} is no number; the default is {default}") from error


def _restart(files: Sequence[str], arguments: Sequence[str], named: str) -> None:
    """Run the same command with the base before its overlay: until 0.7 such overlays were complete. Gone in 0.8."""
    whole = str(list(files)).replace(" ", "")
    print(f'note: {Path(files[1]).name} goes over {Path(files[0]).name} now: --config_file "{whole}"', flush=True)
    given = [argument.replace(named, whole) for argument in arguments]
    os.execv(sys.executable, [sys.executable, "-m", "monai.bundle", *given])


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value` pairs."""
    options: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        if argument.startswith("--"):
            key, _, value = argument[2:].partition("=")
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            options[key] = value or following
    return options


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
