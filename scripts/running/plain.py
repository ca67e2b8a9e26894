# SPDX-License-Identifier: Apache-2.0
"""What configs and options of others may say to our commands: values and components of the bundle, and no code."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from ..bundle import bundle_root
from ..errors import BadInput
from ..trust import asks, is_named

CODE = ("$", "%")  # an expression; a part of another file, which nobody has looked at
MODES = ("default", "callable")  # the third one is a debugger
OURS = re.compile(r"scripts\.(diffusion|measurement|evaluation)\.[A-Za-z]\w*")


def check_plain(content: Any, source: str | Path) -> None:
    """Raise BadInput, when a command of ours asks for it, where a config or options hold code or a component that is not ours.

    source: the file, which may be one of `configs` or named by the user, or what to call the options.
    """
    if not asks() or (isinstance(source, Path) and (_ships(source) or is_named(source))):
        return
    remedy = f"if you would run it as a script, add --trust {source}" if isinstance(source, Path) else "give a plain value"
    for key, value in _leaves(content, source):
        *_, last = re.split("#|::", key)
        if isinstance(value, str) and value.strip().startswith(CODE):
            raise BadInput(f"{source}: '{key}' is code, {value!r:.60}; {remedy}")
        if last == "_target_" and value not in _components() and not OURS.fullmatch(str(value)):
            raise BadInput(f"{source}: '{key}' is no component of this bundle, {value!r:.60}; {remedy}")
        if last == "_mode_" and value not in MODES:
            raise BadInput(f"{source}: '{key}' is {value!r:.60}; take one of {', '.join(MODES)}")


def check_references(files: Sequence[str | Path], options: Mapping[str, Any], source: str) -> None:
    """Raise BadInput, when a command of ours asks for it, where others made a value be, by way of others, itself."""
    if not asks() or (all(map(_ships, files)) and "@" not in str(options)):
        return
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
    parser.update(dict(options))
    parser.parse()
    items = parser.ref_resolver.items
    graph = {key: ReferenceResolver.find_refs_in_config(item.config, key) for key, item in items.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(str(key).replace("::", "#") for key in error.args[1][:5])
        where = next((str(file) for file in reversed(files) if not _ships(file)), source)
        raise BadInput(f"{where}: values refer to each other in a circle ({circle}); mend one of them") from error


def _leaves(content: Any, source: str | Path) -> Iterator[tuple[str, Any]]:
    """Every (path, value) that is neither a list nor a mapping; a part that stands in several places would have no end."""
    waiting, seen = [("", content)], set()
    while waiting:
        path, value = waiting.pop()
        if not isinstance(value, Mapping | list | tuple):
            yield path, value
            continue
        if id(value) in seen:
            raise BadInput(f"{source}: '{path}' is an alias of YAML; write it out")
        seen.add(id(value))
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [(f"{path}#{key}".lstrip("#"), part) for key, part in parts]


def _ships(file: str | Path) -> bool:
    return Path(file).resolve().parent == Path(bundle_root(), "configs").resolve()


@cache
def _components() -> frozenset[str]:
    """Every target that a config of the bundle names."""
    texts = [file.read_text(encoding="utf-8") for file in Path(bundle_root(), "configs").glob("*.yaml")]
    return frozenset(target for text in texts for target in re.findall(r"_target_: ([\w.]+)", text))
