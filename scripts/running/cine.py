# SPDX-License-Identifier: Apache-2.0
"""Restores a cine loop by loop: each slice's is a case like any other, and what came of all is one cine again."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..data.cine import Cine, read_cine, write_cine
from ..data.cine.loops import claim, ending_of, joined, loop_names, name_of, plain, told, write_loops
from ..data.cine.preview import write_preview
from ..data.folder import is_dicom
from ..data.identifiers import FILE, Identifiers
from ..data.provenance import Provenance
from ..errors import BadInput
from ..files import remove
from ..logs import say

logger = logging.getLogger(__name__)
INPUT = "input"  # folder of the loops as they were measured
LOADER = f"{__name__.split('.')[0]}.data.volumes"  # logs what is doubted of each case


def restore_cine(
    source: str, output: str, run: Callable[..., None], provenance: Callable[[], Provenance], *, periodic: bool | None = None,
    keep_ids: bool = False,
) -> None:  # fmt: skip
    """Restore every slice of a cine, and write the whole in kind beside them.

    run: restores a folder of loops, told `dataset_dir` and `periodic`; provenance: what the results are by; periodic: whether
    loops close in a circle, by default as the cine says; keep_ids: name results from DICOM by patient and date.
    Raises BadInput for what is no cine or is called as another one there, and whatever `run` raises; then no cine is written.
    """
    cine, by = read_cine(source), provenance()
    if not Path(by.weights).is_file():  # before anything is written
        raise BadInput(f"{by.weights}: no such weights file; train them first or give another path")
    name = _name(cine, None if keep_ids else Path(output, FILE))
    doubts = told(cine)
    for shown, hidden in zip(cine.doubts, doubts, strict=True):
        logger.warning(f"{source}: {shown}" if keep_ids or cine.series is None else f"{name}: {hidden}")
    folder = Path(output, INPUT, name)
    if folder.absolute() in (Path(source).absolute(), *Path(source).absolute().parents):
        raise BadInput(f"{source}: lies where its loops are to be written; give another output")
    claim(folder.parent, name, cine)
    result, preview = (Path(output, f"{name}_{what}") for what in (f"pred{_ending(Path(source))}", "preview.gif"))
    for earlier in (result, preview):
        remove(earlier)  # it would stand beside other loops
    for loop in [*folder.glob(f"{name}-[0-9]*_cine.nii.gz"), *folder.glob(f"{name}-[0-9]*_cine.json")]:
        remove(loop)  # a slice more, perhaps
    write_loops(cine, folder, name, doubts)
    with _said(doubts):
        run(dataset_dir=str(folder), periodic=cine.gated if periodic is None else periodic)
    results = [Path(output, case, f"{case}_pred.nii.gz") for case in loop_names(cine, name)]
    whole = joined(cine, results)
    write_cine(whole, cine, result, provenance=by)
    say(f"cine: {result}")
    try:
        write_preview({"input": cine, "result": whole}, preview, index=cine.voxels.shape[2] // 2)
    except BadInput as error:  # of many frames
        logger.warning(f"no preview: {error}")
    else:
        say(f"preview: {preview}")


def _name(cine: Cine, identifiers: Path | None) -> str:
    """Of the results: after the file, or from DICOM the study and the series' number, for a study holds many loops.

    identifiers: the file that tells whose a study is, which is then named study-001 and so on.
    """
    if cine.series is None:
        return name_of(cine.source)
    from ..data.dicom.choose import study_name  # needs pydicom

    study = study_name(cine.series)
    if identifiers is not None:
        study = Identifiers(identifiers).names({study: [cine.series]})[study]
    return plain(study if cine.series.number is None else f"{study}-s{cine.series.number}")


@contextmanager
def _said(doubts: Sequence[str]) -> Iterator[None]:
    """Keep what was said of the whole from being logged again for every slice, whose record keeps it."""

    def new(record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith(tuple(doubts))

    log = logging.getLogger(LOADER)
    log.addFilter(new)
    try:
        yield
    finally:
        log.removeFilter(new)


def _ending(source: Path) -> str:
    """Of the result: a folder of DICOM for DICOM, else the file's own."""
    return "" if source.is_dir() or is_dicom(source) else ending_of(source)
