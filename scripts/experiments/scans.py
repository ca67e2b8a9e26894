# SPDX-License-Identifier: Apache-2.0
"""A datalist of volumes of any contrast, from which a model for all of them learns."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ..data.cases import find_cases
from ..data.random_scans import KINDS
from ..errors import BadInput
from ..files import write_json

logger = logging.getLogger(__name__)


def scans(output: str, folders: Sequence[Sequence[str]]) -> None:
    """Write what `scans_of` reads: the train split of every folder, or all of one that has no splits.csv.

    folders: kind (`KINDS`), folder, modality and how often each volume is listed. Raises BadInput for what is none of these.
    """
    entries = []
    for kind, folder, modality, times in folders:
        if kind not in KINDS or not (times.isdecimal() and int(times)):
            raise BadInput(
                f"{kind} {folder} {modality} {times}: give one of {', '.join(KINDS)}, folder, modality, times from 1"
            )
        split = "train" if Path(folder, "splits.csv").is_file() else "all"
        files = [str(Path(case["image"][0]).absolute()) for case in find_cases(folder, [modality], split=split)]
        logger.info(f"{folder}: {len(files)} of {modality}, {times} times each, as {kind}")
        entries += [{"image": file, "kind": kind} for file in files] * int(times)
    write_json(Path(output), {"training": entries})
