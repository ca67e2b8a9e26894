# SPDX-License-Identifier: Apache-2.0
"""What a folder holds, what each file or series would be used for, and what is wrong with the rest; reads headers only."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import BadInput
from .cases import find_cases, folder_of, look
from .dicom import DicomSeries
from .dicom.choose import Studies, describe, find_studies
from .dicom.series import affine_of
from .volumes import GRID_TOLERANCE_MM, checked_header

orientations: Any = nib.orientations  # has no types


def doctor(dataset_dir: str | Path, task: Sequence[str] = ("t1",), rules: Iterable[tuple[str, str]] = ()) -> None:
    """Print what is found and what is used for the conditions of a task.

    rules: `series_rules` of the configs, as pairs. Raises BadInput when no case could be used.
    """
    folder = folder_of(dataset_dir)
    studies, refused = find_studies(folder)
    for line in (*_table(studies), *(f"refused: {line}" for line in refused)):
        print(line)
    print(f"For {' and '.join(task)}:")
    if studies and (files := look(folder, task)[0]):
        print(f"  volume files form cases, such as {next(iter(files))}, so DICOM is not used; for it give a folder without")
    with _unlogged(refused):
        cases = find_cases(folder, task, series_rules=dict(rules))
    reasons, elsewhere = zip(
        *(_examine(entry["case"], dict(zip(task, entry["image"], strict=True))) for entry in cases), strict=True
    )
    usable, displaced = reasons.count(""), sum(elsewhere)
    print(f"{usable} of {len(cases)} cases can be used{f', {displaced} of them after resampling' if displaced else ''}")
    if not usable:
        raise BadInput(next(filter(None, reasons)))


@contextmanager
def _unlogged(lines: Sequence[str]) -> Iterator[None]:
    """Keep what was printed from being logged as well."""

    def new(record: logging.LogRecord) -> bool:
        return record.getMessage() not in lines

    log = logging.getLogger(find_cases.__module__)
    log.addFilter(new)
    try:
        yield
    finally:
        log.removeFilter(new)


def _table(studies: Studies) -> list[str]:
    lines = []
    for case, study in studies.items():
        lines.append(f"case {case}: {len({one.uid for one in study})} DICOM series")
        lines.extend(f"  {line}" for line in describe(study))
    return lines


def _examine(case: str, sources: Mapping[str, str | DicomSeries]) -> tuple[str, bool]:
    """Print what a case is made of; why it cannot be used, or "", and whether it has volumes on another grid than the first."""
    try:
        grids = {word: _grid(source) for word, source in sources.items()}
    except BadInput as error:
        print(f"  case {case} cannot be used: {error}")
        return str(error), False
    print(f"  case {case}: {', '.join(f'{word} is {source}' for word, source in sources.items())}")
    first, *others = grids
    displaced = [word for word in others if not _same(grids[first], grids[word])]
    for word in displaced:
        print(f"    {word} is not on the grid of {first}; resample it first (docs/your_data.md#grids)")
    return "", bool(displaced)


Grid = tuple[np.ndarray, tuple[int, ...]]  # 4x4 affine to RAS and shape


def _grid(source: str | DicomSeries) -> Grid:
    """Of a volume that is turned to RAS."""
    if not isinstance(source, DicomSeries):
        affine, shape = checked_header(Path(source).expanduser())
    elif source.problem:
        raise BadInput(f"{source} {source.problem}")
    else:
        affine, shape = affine_of(source), source.shape
    turn = orientations.io_orientation(affine)
    sides = [shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3)]
    return affine @ orientations.inv_ornt_aff(turn, shape), tuple(sides)


def _same(first: Grid, second: Grid) -> bool:
    if first[1] != second[1]:
        return False
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in first[1]))]).T
    return bool(np.linalg.norm((first[0] - second[0]) @ corners, axis=0).max() <= GRID_TOLERANCE_MM)
