# SPDX-License-Identifier: Apache-2.0
"""The first thing every run does: refuse what would change nothing, and turn bad input into one line."""

import ast
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser

from ..data.write import check_output_dir
from ..errors import BadInput, end_cleanly, root_cause
from ..logs import say_any_name
from .plain import check_plain, check_references

# Options of `monai.bundle run` itself; every other `--key` overrides the config.
RUN_OPTIONS = {
    "args_file", "config_file", "final_id", "init_id", "logging_file", "meta_file", "run_id", "tracking", "workflow_type",
}  # fmt: skip
WITHOUT_LIST = {"patch", "specialists"}  # ids of lists that may be null
NUMBERS = {"memory_gb", "max_cases", "thickness"}  # ids of numbers that are not given by default
# What numbers may be, beyond which a run fails late, or does nothing: words, a test, ids.
RANGES: list[tuple[str, Callable[[float], bool], set[str]]] = [
    ("1 or more", lambda value: value >= 1, {"max_epochs", "steps_per_epoch", "batch_size", "accumulate", "val_interval"}),
    ("0 or more", lambda value: value >= 0, {"num_workers", "warmup_steps", "train_planes", "seed"}),
    ("above 0", lambda value: value > 0, {"learning_rate", "gradient_norm"}),
    ("from 0 to 1", lambda value: 0 <= value <= 1, {"mirror", "vary", "turn", "foreground", "regression_share"}),
    ("between 0 and 1", lambda value: 0 < value < 1, {"ema_decay"}),
]
TRANSFORMS = {"interval", "unseen"}  # ids of steps that a list of them names, and calls
PREFLIGHT = "preflight"  # the id that workflows have and overlays have not
RESUMING = "Engine run resuming from iteration 0,"  # what ignite calls a start
LOGGERS = (
    "monai.handlers.StatsHandler", "ignite.engine.engine.CaseEvaluator", "ignite.engine.engine.SupervisedEvaluator",
    "ignite.engine.engine.SupervisedTrainer",
)  # fmt: skip
OVER = "_over_"  # the workflow that an overlay is for, where its ids do not say it
WITH = "_with_"  # ids that an overlay brings along
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
    say_any_name()
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
    if output_dir is not None:
        check_output_dir(output_dir)
    if arguments:  # a process of its own, not a guest in somebody's
        end_cleanly()
    options = _options(arguments)
    if (named := options.pop("config_file", None)) is None:
        return
    files = list(ast.literal_eval(named)) if named.startswith(("[", "(")) else named.split(",")
    if base is not None and base not in [Path(file).name for file in files]:
        _restart([str(Path(files[0]).with_name(base)), *files], arguments, named)
    check_changes(files, {key: value for key, value in options.items() if key not in RUN_OPTIONS}, "the command line")


def check_changes(files: Sequence[str | Path], options: Mapping[str, Any], source: str) -> None:
    """Raise BadInput for a key, in an overlay or in `options`, that no workflow among the files has, and for a value that is no
    switch or number where one belongs: such a change would change nothing, or something else, in silence. Likewise, for
    commands of ours, for what `check_plain` and `check_references` refuse.
    """
    read = [config_of(file) for file in files]
    configs = {Path(file).name: config for file, config in zip(files, read, strict=True)}
    for file, config in zip(files, read, strict=True):
        check_plain(config, Path(file))
    check_plain(options, source)
    workflows = [str(file) for file in files if PREFLIGHT in configs[Path(file).name]]
    known = ConfigParser.load_config_files(workflows)
    fixed = dict[str, Any]()
    for workflow in (configs[Path(file).name] for file in workflows):
        for unused in workflow.get(WITHOUT, []):
            known.pop(unused)
            fixed |= {unused: workflow[unused]} if unused in workflow else {}
    known |= {key: config.get(key) for config in configs.values() for key in config.get(WITH, [])}
    for name, config in configs.items():
        if config.get(OVER, name) not in configs:
            raise BadInput(f"{name}: changes {config[OVER]} alone; leave it out here")
        if PREFLIGHT not in config:
            changed = {key: value for key, value in config.items() if fixed.get(key, ...) != value}
            check_keys(changed, known, name, workflows[-1])
            for key, value in config.items():
                _check_range(key, value, name)
    check_keys(options, known, source, workflows[-1])
    for key, value in options.items():
        _check_value(key, value, _default(key, known), source)
        _check_range(key, value, source)
    check_references(files, options, source)


def _default(key: str, known: Mapping[str, Any]) -> Any:
    """The value of an id, or of the one that it is the same as."""
    value = ConfigParser(dict(known)).get(key)
    return known.get(value[1:], value) if isinstance(value, str) and value.startswith("@") else value


def config_of(file: str | Path) -> dict[str, Any]:
    """What a config file says. Raises BadInput when it is none."""
    try:
        content = ConfigParser.load_config_file(str(file))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        fact = (str(error).splitlines() or [""])[0][:120]
        raise BadInput(f"{file}: cannot be read as a config ({fact}); mend it (docs/configs.md)") from error
    if not isinstance(content, dict):
        raise BadInput(f"{file}: holds no ids and values; see docs/configs.md")
    return content


def check_keys(changes: Mapping[str, Any], base: Mapping[str, Any], source: str, base_name: str) -> None:
    """Raise BadInput for a key, `a#b` for a nested one, that the config `base` does not have; it would change nothing."""
    for key in changes:
        if not key.startswith("_") and key.lstrip("+") not in ConfigParser(dict(base)):
            raise BadInput(f"{source}: '{key}' is not in {Path(base_name).name}; correct the name (docs/configs.md lists them)")


def _check_value(key: str, value: Any, default: Any, source: str) -> None:
    """Any text counts as true; and a word in place of a number would fail late, far from its cause."""
    if isinstance(default, bool) and str(value) not in ("True", "False"):
        raise BadInput(f"{source}: --{key} {value} is neither True nor False; write it with a capital")
    if isinstance(default, bool) or str(value).startswith(("$", "@")):
        return
    if value is None and key in ("dataset_dir", "ckpt_path"):
        raise BadInput(f"{source}: --{key} is empty; give a path")
    wanted = default if default is not None or value is None or key not in NUMBERS else 0.0
    if isinstance(wanted, int | float) and not _is_number(value, whole=isinstance(wanted, int)):
        kind = "whole number" if isinstance(wanted, int) and _is_number(value, whole=False) else "number"
        raise BadInput(f"{source}: --{key} {value} is no {kind}; the default is {default}")
    if isinstance(default, Mapping) and default.get("_mode_") == "callable" and isinstance(value, str | int | float):
        raise BadInput(f"{source}: --{key} {value} is no component; set its parts, as --{key}#{next(iter(default))}")
    if key in TRANSFORMS and str(value) in ("None", "null"):
        raise BadInput(f"{source}: --{key} {value} leaves no step to call; without weights it does nothing: {key}#weights=null")
    if isinstance(default, list) and not (value is None and key in WITHOUT_LIST):
        given = list(value) if isinstance(value, tuple | list) else _list_of(str(value))
        if not given and default:
            raise BadInput(f"{source}: --{key} {value} is no list with something in it; the default is {default}")
        if all(isinstance(one, int) for one in default) and default and not all(_is_number(one, whole=True) for one in given):
            raise BadInput(f"{source}: --{key} {value} is no list of whole numbers; the default is {default}")
    if key == "device":
        try:
            torch.zeros(1, device=str(value))
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"{source}: --device {value} is not there ({str(error).splitlines()[0][:100]}); try cpu") from error


def _check_range(key: str, value: Any, source: str) -> None:
    for words, fits, ids in RANGES:
        if key in ids and _is_number(value, whole=False) and not fits(float(value)):
            raise BadInput(f"{source}: {key} {value} is not {words}; correct it")


def _list_of(text: str) -> list[Any]:
    with suppress(yaml.YAMLError):
        return content if isinstance(content := yaml.safe_load(text), list) else []
    return []


def _is_number(value: Any, *, whole: bool) -> bool:
    try:
        return float(value).is_integer() if whole else bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


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
    if kind is KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
    elif cause is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {cause}", file=sys.stderr)


def _is_news(record: logging.LogRecord) -> bool:
    """A run that begins is none that goes on; bad input, and that somebody stops a run, is told once, by who ends it."""
    error = sys.exc_info()[1] if record.levelno >= logging.ERROR else None
    told = isinstance(error, SystemExit | KeyboardInterrupt) or root_cause(error) is not None
    return not told and RESUMING not in record.getMessage()
