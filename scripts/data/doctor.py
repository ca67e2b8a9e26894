# SPDX-License-Identifier: Apache-2.0
"""What a folder holds, what each file or series would be used for, and what is wrong with the rest."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ..errors import BadInput, named, several
from ..measurement.slices import Slices
from .advice import ANY, Expectation, Grid, Plan, asked_of, orientations, plan
from .cases import BESIDE, ERROR, find_cases, folder_of, look
from .cine import read_cine
from .dicom import DicomSeries
from .dicom.choose import Studies, describe, find_studies
from .dicom.series import affine_of
from .doubts import Volume, by
from .folder import summary
from .read import Scan, checked_header, read_source
from .seen import Seen, judge, properties, read_seen
from .specialists import Specialist


def doctor(
    dataset_dir: str | Path, task: Sequence[str] = (ANY,), rules: Iterable[tuple[str, str]] = (), *,
    bids_filter: Mapping[str, Any] | None = None, resample: bool = False, register: bool = False, force: bool = False,
    **scan: Any,
) -> None:  # fmt: skip
    """Print what is found, what is used for a task and what it would make of it, as `restore` would have it.

    task: as configs/task_NAME.yaml, or conditions alone, of which nothing is to be restored. rules: `series_rules` of the
    configs, as pairs; bids_filter: as there; resample, register, force, and of `scan` contrast, spacing and thickness: as
    `restore` would be told. Raises BadInput when no case could be used, SystemExit with 2 when some could not.
    """
    asked, expected = asked_of(task, **scan)
    expected = expected._replace(resample=resample or register, refusing=expected.refusing and not force)
    if expected.loops:
        _cine(dataset_dir, task[0], expected)
        return
    folder = folder_of(dataset_dir)
    studies, refused = find_studies(folder)
    for line in (*_table(studies), *(f"refused: {line}" for line in refused)):
        print(line)
    print(f"For {' and '.join(task)}{'' if asked == list(task) else ', from ' + ' and '.join(asked)}:")
    if expected.caveat:
        print(f"  {expected.caveat}")
    if studies and (files := look(folder, asked)[0]):
        print(f"  {BESIDE}, such as {next(iter(files))}, so DICOM is not used; for it give a folder without")
    with _unlogged(refused):
        cases = find_cases(folder, asked, series_rules=dict(rules), bids_filter=bids_filter, refused=True)
    print(f"  {summary(cases.files)}")
    known = Known.of(expected)
    reasons = [_examined(entry, asked, expected, known) for entry in cases]
    usable = reasons.count("")
    print(f"{usable} of {len(cases)} cases can be used")
    if not usable:
        raise BadInput(next(named(entry["case"], reason) for entry, reason in zip(cases, reasons, strict=True)))
    if usable < len(cases):
        raise SystemExit(2)  # as the run would end


def _cine(source: str | Path, task: str, expected: Expectation) -> None:
    """What a loop, or a stack of them, is read as."""
    print(f"For {task}:\n  {expected.caveat}" if expected.caveat else f"For {task}:")
    cine = read_cine(source)
    width, height, slices, frames = cine.voxels.shape
    ends = "time closes in a circle" if cine.gated else "time has two ends"
    every = float(np.median(np.diff(cine.frame_times))) * 1000
    print(f"  {several(slices, 'slice')} of {width}x{height} pixels, {frames} frames, one every {every:.4g} ms; {ends}")
    for doubt in cine.doubts:
        print(f"  {doubt}")
    if not Path(expected.weights).is_file():
        raise BadInput(f"{expected.weights}: no such weights file; train them first (docs/cine.md)")
    print("1 of 1 cases can be used")


@contextmanager
def _unlogged(lines: Sequence[str]) -> Iterator[None]:
    """Keep what was printed from being logged as well."""

    def new(record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return said not in lines and BESIDE not in said

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


class Known(NamedTuple):
    """What the weights of a task saw, by condition, and those that may answer in their place."""

    seen: Mapping[str, Seen]
    specialists: Sequence[Specialist] = ()

    @classmethod
    def of(cls, expected: Expectation) -> Self:
        """Nothing where several scans are one measurement: the weights saw them as one volume."""
        noted = expected.weights and len(expected.blocks) < 2
        return cls(read_seen(expected.weights) if noted else {}, [Specialist.of(task) for task in expected.specialists])


def _examined(entry: Mapping[str, Any], asked: Sequence[str], expected: Expectation, known: Known) -> str:
    if ERROR in entry:
        print(f"  cannot be used: {entry[ERROR]}")
        return str(entry[ERROR])
    return _examine(entry["case"], dict(zip(asked, entry["image"], strict=True)), expected, known)


def _examine(case: str, sources: Mapping[str, str | DicomSeries], expected: Expectation, known: Known) -> str:
    """Print what a case is made of; why it cannot be used, or ""."""
    try:
        way = plan(case, [(str(source), _grid(source)) for source in sources.values()], expected)
        scans = [read_source(source) for source in sources.values()]
        lines = [[*scan.doubts, *_sampled(scan, way, expected)] for scan in scans]
        doubts = [f"{word}: {line}" for word, of_one in zip(sources, lines, strict=True) for line in of_one]
        doubts += _unseen(scans, way, expected, known)
    except BadInput as error:
        print(f"  case {case} cannot be used: {error}")
        return str(error)
    print(f"  case {case}: {', '.join(f'{word} is {source}' for word, source in sources.items())}", flush=True)
    if expected.weights:
        print(f"    comes out as {_outcome(scans[0], way)}")
    for line in (*doubts, *way.doubts, *(f"{Path(source).name} will be resampled onto the first" for source in way.displaced)):
        print(f"    {line}")
    return ""


def _outcome(scan: Scan, way: Plan) -> str:
    """Voxels of the result, its axes as the scan's are stored."""
    axes = [int(axis) for axis in orientations.io_orientation(scan.affine)[:, 0]]
    sides = " x ".join(f"{way.grid.spacing[axis]:.3g}" for axis in axes)
    return f"{by([way.grid.shape[axis] for axis in axes])} voxels of {sides} mm"


def _sampled(scan: Scan, way: Plan, expected: Expectation) -> list[str]:
    """What a run would assume of a scan's slices."""
    if expected.scanned is None:
        return []
    spacing, shape = _sides(scan, way)
    return expected.scanned.doubts(expected.scanned.sampling(shape, spacing, scan.thickness), spacing, scan.thickness)


def _sides(scan: Scan, way: Plan) -> tuple[list[float], list[int]]:
    """Spacing (mm) and voxels along the axes in the order of the run."""
    grid = Grid(scan.affine, scan.voxels.shape).in_ras()
    return [grid.spacing[axis] for axis in way.order], [grid.shape[axis] for axis in way.order]


def _unseen(scans: Sequence[Scan], way: Plan, expected: Expectation, known: Known) -> list[str]:
    """Whose weights answer instead, and how scans are unlike what they saw. Raises BadInput where a run would."""
    lines, seen = list[str](), known.seen
    for number, scan in enumerate(scans[: len(seen)]):
        spacing, shape = _sides(scan, way)
        turn = orientations.io_orientation(scan.affine)
        voxels = orientations.apply_orientation(scan.voxels, turn).transpose(way.order)
        found = properties(voxels, spacing)
        if expected.scanned is not None:
            axes = expected.scanned.sampling(shape, spacing, scan.thickness)
            one = next((one for one in known.specialists if one.suits(axes, spacing, found)), None)
            if one is not None:
                lines, seen = [f"{Path(one.weights).name} will be used, of task {one.task}"], {one.condition: one.seen}
            else:  # the weights for all scans are shown slices on the grid of the result
                found = properties(*_repeated(voxels, spacing, axes))
        name, of_one = list(seen.items())[number]
        lines += judge(name, of_one, found, refusing=expected.refusing)
    return lines


def _repeated(voxels: Volume, spacing: Sequence[float], axes: Sequence[Slices | None]) -> tuple[Volume, list[float]]:
    """A scan (H, W, D) with the nearest slice in every voxel of its result's grid, and their sides in mm."""
    for number, axis in enumerate(axes):
        voxels = voxels if axis is None else voxels.take(axis.nearest(), axis=number)
    return voxels, [mm if axis is None else mm / axis.spacing for mm, axis in zip(spacing, axes, strict=True)]


def _grid(source: str | DicomSeries) -> Grid:
    """Of a volume that is turned to RAS."""
    if not isinstance(source, DicomSeries):
        header = checked_header(Path(source).expanduser())
        return Grid(header.affine, tuple(header.shape)).in_ras()
    if source.problem:
        raise BadInput(f"{source} {source.problem}")
    return Grid(affine_of(source), source.shape).in_ras()
