# SPDX-License-Identifier: Apache-2.0
"""What pages say in plain lines: doubts, alike ones of many cases once, and warnings, on a case's page its own alone."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from monai.utils.misc import ensure_tuple

from ..errors import named, several

MOST = 20  # lines that stand open
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"  # in place of a name


def notes(title: str, lines: Sequence[str]) -> str:
    """A box of lines, or nothing where there are none."""
    return _box(title, [escape(line) for line in lines])


def doubts(cases: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Any]) -> str:
    """A box of the doubts of all cases: those that differ in names alone are one, and what few cases have comes first.

    sources: case -> `image` and `label`, whose names may stand in a doubt.
    """
    groups: dict[str, dict[str, str]] = {}
    for case, measured in cases.items():
        for line in measured.get("doubts", ()):
            groups.setdefault(_nameless(line, [case, *_files(sources.get(case, {}))]), {})[case] = line
    rare_first = sorted(groups.items(), key=lambda group: len(group[1]))
    return _box("Doubts", [_shared(text, lines, len(cases)) for text, lines in rare_first])


def all_warnings(results: Mapping[str, Any]) -> str:
    """Of a run, one below the other, or nothing where there are none."""
    return _items([escape(line) for line in lines]) if (lines := results.get("warnings")) else ""


def own_warnings(results: Mapping[str, Any], case: str, above: str) -> str:
    """Of a run's warnings those of a case, and how many others stand on the page `above` (a link).

    Any other may name a case that the record does not know, such as one that was left out, and a case's page may be sent to
    whom others do not concern. What holds for all cases is a doubt of each.
    """
    lines: Sequence[str] = results.get("warnings", ())
    own = [escape(line) for line in lines if line.startswith(f"case {case}:")]
    others = several(len(lines) - len(own), "warning")
    more = [f'<a href="{above}">{others} of the run</a>'] if len(own) < len(lines) else []
    return _items([*own, *more]) if lines else ""


def unfinished(results: Mapping[str, Any], done: int) -> list[str]:
    """A line where the run did not end, as far as its record knows."""
    if not results.get("unfinished"):
        return []
    of_all = f" of {len(cases)}" if (cases := results.get("sources", {}).keys() | results.get("cases", {}).keys()) else ""
    return [f"The run was stopped, or is under way: {done}{of_all} cases are done; the same command goes on."]


def _shared(text: str, lines: Mapping[str, str], count: int) -> str:
    """lines: by case, text: what they have in common; count: of all cases."""
    (first, line), *more = lines.items()
    if not more:
        return escape(named(first, line))
    said = line if len(set(lines.values())) == 1 else text
    who = f"all {count} cases" if len(lines) == count else several(len(lines), "case")
    return f"{escape(f'{who}: {said}')}<details><summary>which</summary>{escape(', '.join(lines))}</details>"


def _box(title: str, items: Sequence[str]) -> str:
    """items: HTML."""
    rest = items[MOST:]
    more = f"<details><summary>{len(rest)} more</summary>{_items(rest)}</details>" if rest else ""
    return f'<section class="notes"><h2>{title}</h2>{_items(items[:MOST])}{more}</section>' if items else ""


def _items(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _files(source: Mapping[str, Any]) -> list[str]:
    """Paths and names of the files of a case; those of DICOM are never named."""
    paths = [one for told in source.values() for one in ensure_tuple(told) if isinstance(one, str)]
    return [name for path in paths for name in (path, Path(path).name)]


def _nameless(line: str, names: Sequence[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        line = re.sub(_whole(name), ELLIPSIS, line)
    return line


def _whole(words: str) -> str:
    return rf"(?<!\w){re.escape(words)}(?!\w)"
