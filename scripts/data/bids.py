# SPDX-License-Identifier: Apache-2.0
"""The entities in names of BIDS, and a choice by them among several files of one modality."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .formats import stem

# pybids' names of entities -> those in file names; others are the same in both.
SHORT = {
    "acquisition": "acq", "ceagent": "ce", "description": "desc", "direction": "dir", "inversion": "inv", "mode": "mod",
    "reconstruction": "rec", "resolution": "res", "session": "ses", "subject": "sub",
}  # fmt: skip
ENTITY = re.compile(r"(?:^|_)([A-Za-z]+)-([^_]+)")


def entities(path: Path) -> dict[str, str]:
    """As {"sub": "01", "acq": "mprage"}."""
    return dict(ENTITY.findall(stem(path)))


def filter_for(bids_filter: Any, modality: str) -> dict[str, Any]:
    """What a filter asks of a modality's files: {"acq": "mprage", "run": [1, 2], "rec": None, "flair": {"space": "T1w"}}.

    Raises BadInput unless it is such a mapping.
    """
    if not isinstance(bids_filter, Mapping) or not all(isinstance(key, str) for key in bids_filter):
        raise BadInput(f'bids_filter {bids_filter}: is no mapping of entities; write it as {{"acq": "mprage", "run": 1}}')
    own = [value for key, value in bids_filter.items() if key.lower() == modality and isinstance(value, Mapping)]
    asked = {key: value for key, value in bids_filter.items() if not isinstance(value, Mapping)}
    for mapping in own:
        asked |= mapping
    return {SHORT.get(key.lower(), key.lower()): value for key, value in asked.items()}


def fitting(names: Sequence[Mapping[str, str]], asked: Mapping[str, Any]) -> list[int]:
    """Which of several files, given by their entities, a filter chooses. null asks for those without the entity.

    An entity that none of them has chooses nothing: a subject with one scan needs no run in its name.
    """
    left = list(range(len(names)))
    for key, value in asked.items():
        values = [str(one).lower().lstrip("0") for one in (value if isinstance(value, list | tuple) else [value])]
        if value is None:
            left = [index for index in left if key not in names[index]]
        elif any(key in names[index] for index in left):
            left = [index for index in left if names[index].get(key, "").lower().lstrip("0") in values and key in names[index]]
    return left


def difference(first: Mapping[str, str], second: Mapping[str, str]) -> str:
    """How to choose one of two files by their entities, or ""."""
    keys = [key for key in dict.fromkeys((*first, *second)) if first.get(key) != second.get(key)]
    if not keys:
        return ""
    told = " and ".join(f"{key} ({first.get(key, 'none')}, {second.get(key, 'none')})" for key in keys)
    return f"they differ in {told}; choose by bids_filter, as {json.dumps({keys[0]: first.get(keys[0])})}, or give a datalist"
