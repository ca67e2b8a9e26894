# SPDX-License-Identifier: Apache-2.0
"""Weights by name: those that ship, in `models`, and those that this user added, in a folder of the same layout."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple

from .bundle import bundle_root, task_configs
from .errors import BadInput
from .files import read_json, sha256, whole, write_json
from .limits import limits_of

CHECKSUMS, FACTS = "checksums.json", "models.json"  # sha256 by file, and what is known by name; beside the weights
BESIDE = {".seen.json": "what they saw", ".int8.json": "ranges of integers", ".interval.json": "interval"}
NAME, SUM = re.compile(r"[A-Za-z0-9][\w.-]{0,63}"), re.compile(r"[0-9a-f]{64}")
WAIT = 60  # seconds for a server to say something


class Model(NamedTuple):
    """Weights that have a name.

    task: that they were trained for, None for no restoration; facts: as `models.json` beside them has them.
    """

    name: str
    file: Path
    sha256: str
    task: str | None
    facts: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        """All that is known of them, with what lies beside their file; `broken` where it is not the file that is listed."""
        seen = self.file.with_suffix(".seen.json")
        caveat = limits_of(self.file).caveat
        return {
            "name": self.name,
            **self.facts,
            "task": self.task,
            "volumes": read_json(seen, "fetch it again").get("volumes") if seen.is_file() else None,
            **({"caveat": caveat} if caveat else {}),
            "beside": [text for ending, text in BESIDE.items() if self.file.with_suffix(ending).is_file()],
            "bytes": self.file.stat().st_size,
            "sha256": self.sha256,
            "broken": sha256(self.file) != self.sha256,
            "file": str(self.file),
        }


def folders() -> list[Path]:
    """Where weights with names lie: of the bundle, then of this user, if there is a home."""
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError:
        return [Path(bundle_root(), "models")]
    return [Path(bundle_root(), "models"), Path(data, "score-fusion", "models")]


def listed_sums(folder: Path) -> dict[str, str]:
    """sha256 by file name of the weights in a folder; none where nothing is listed."""
    table = folder / CHECKSUMS
    return read_json(table, "fetch it again, or remove it and add them again") if table.is_file() else {}


def known() -> dict[str, Model]:
    """Every model that is there by its name."""
    found: dict[str, Model] = {}
    for folder in folders():
        facts = _facts(folder)
        for file, total in sorted(listed_sums(folder).items()):
            name = Path(file).stem
            if (folder / file).is_file():
                found.setdefault(name, Model(name, folder / file, total, facts.get(name, {}).get("task"), facts.get(name, {})))
    return found


def with_weights(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a command with the weights of `model`, which no specialist answers for, and, unless another is asked for, the
    task they were trained for.

    Raises BadInput for a name that nobody knows, for weights that restore nothing, and beside other weights.
    """
    given = dict(options)
    if (name := given.pop("model", None)) is None:
        return given
    models = known()
    names = ", ".join(one for one, model in models.items() if model.task)
    if "ckpt_path" in given:
        raise BadInput(f"--model {name}: --weights names others; give one of the two")
    if name not in models:
        raise BadInput(f"no model '{name}'; choose one of {names}, or add it (score-fusion models add --help)")
    if (task := models[name].task) is None:
        raise BadInput(f"model '{name}': restores nothing, it is {models[name].facts.get('use')}; choose one of {names}")
    return {"task": task, **given, "ckpt_path": str(models[name].file), "specialists": None}


def models(as_json: bool = False) -> None:
    """Print what is known of every model, as text or as a list in JSON."""
    contents = [model.content() for model in known().values()]
    if as_json:
        print(json.dumps(contents, indent=2, ensure_ascii=False))
        return
    for content in contents:
        print("\n".join(_lines(content)), end="\n\n")
    print("use one: score-fusion restore IN -o OUT --model NAME; not for diagnosis (docs/model_cards)")


def add(source: str, checksum: str, *, name: str | None = None, task: str = "super_resolution") -> None:
    """Copy or fetch weights into this user's folder, where commands find them by name and trust them; whole or not at all.

    source: a file, or an address that begins with https:// or http://; checksum: their sha256, as the author published it;
    name: by default the file's; task: that they were trained for. Raises BadInput when anything of it is not so.
    """
    name, total = (name or Path(source.partition("?")[0]).name).removesuffix(".pt"), checksum.strip().lower()
    *_, folder = places = folders()
    if len(places) < 2:
        raise BadInput("there is no home to keep weights in; set XDG_DATA_HOME to a folder")
    _check(name, total, task, folder)
    file = folder / f"{name}.pt"
    with whole(file, "set XDG_DATA_HOME to a folder that can be written") as part:
        found = _fetched(source, part)
        if found != total:
            raise BadInput(
                f"{source}: its sha256 is {found[:12]}..., not {total[:12]}...; fetch it again, or ask who published it"
            )
    write_json(folder / FACTS, {**_facts(folder), name: {"task": task, "source": source}})
    write_json(folder / CHECKSUMS, {**listed_sums(folder), file.name: total})  # last: from now on they are known
    print(f"{file}: added; next: score-fusion restore IN -o OUT --model {name}")


def remove(name: str) -> None:
    """Remove weights that this user added, with what was made beside them; what ships stays.

    Raises BadInput for a name that was not added, and where a file cannot be removed.
    """
    *_, folder = places = folders()
    sums, facts = (listed_sums(folder), _facts(folder)) if len(places) > 1 else ({}, {})
    file = folder / f"{name}.pt"
    if sums.pop(f"{name}.pt", None) is None:
        fact = "ships, and stays" if name in known() else "no such model was added"
        raise BadInput(f"{name}: {fact}; you may remove {', '.join(Path(one).stem for one in sums) or 'none'}")
    write_json(folder / CHECKSUMS, sums)  # first: from now on nobody knows or trusts them
    write_json(folder / FACTS, {one: fact for one, fact in facts.items() if one != name})
    beside = [file.with_suffix(ending) for ending in (*BESIDE, ".interval.pt")]
    try:
        for one in (file, *(path for path in beside if path.name not in sums)):
            one.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{error.filename}: known no more, but cannot be removed ({error.strerror}); remove it") from error
    print(f"{file}: removed")


def _check(name: str, total: str, task: str, folder: Path) -> None:
    """Raise BadInput for what cannot be added, before anything is fetched."""
    if not NAME.fullmatch(name):
        raise BadInput(f"'{name}' cannot name a model; give letters, digits, - and _, as --name mine")
    if not SUM.fullmatch(total):
        raise BadInput(f"--sha256 {total[:70]}: is not 64 hexadecimal digits; give the sum that the author published")
    if task not in (tasks := task_configs()):
        raise BadInput(f"no task '{task}'; choose one of {', '.join(tasks)}")
    model = known().get(name)
    if model is not None and (model.file.parent != folder or model.sha256 != total):
        remedy = f", or score-fusion models remove {name}" if model.file.parent == folder else ""
        raise BadInput(f"{name}: other weights have this name; give another --name{remedy}")


def _fetched(source: str, part: Path) -> str:
    """Write the source to `part`; its sha256."""
    from http.client import HTTPException  # here: every command imports this module

    try:
        with closing(_opened(source)) as stream, part.open("wb") as target:
            shutil.copyfileobj(stream, target)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BadInput(f"{source}: cannot be had ({str(reason)[:120]}); check it, and that there is room") from error
    return sha256(part)


def _opened(source: str) -> IO[bytes]:
    if source.startswith(("https://", "http://")):
        from urllib.request import urlopen

        return urlopen(source, timeout=WAIT)
    return Path(source).expanduser().open("rb")


def _facts(folder: Path) -> dict[str, Any]:
    table = folder / FACTS
    return read_json(table, "fetch it again, or remove it and add them again") if table.is_file() else {}


def _lines(content: Mapping[str, Any]) -> list[str]:
    """A model in words."""
    size = f"{content['bytes'] / 1e6:.1f} MB"
    volumes = f"; {content['volumes']} volumes" if content["volumes"] else ""
    told = {
        "for": content.get("use"),
        "saw": f"{content['seen']}{volumes}" if "seen" in content else None,
        "data": content.get("data"),
        "licence": content.get("licence"),
        "weak on": content.get("weak"),
        "caveat": content.get("caveat"),
        "from": content.get("source"),
        "beside": ", ".join(content["beside"]),
        "broken": "not the file that is listed; fetch it again" if content["broken"] else None,
    }
    title = f"{content['name']}  (task {content['task'] or 'none'}, {size}, sha256 {content['sha256'][:12]})"
    return [title, *(f"  {key:8} {text}" for key, text in told.items() if text)]
