# SPDX-License-Identifier: Apache-2.0
"""Cine as DICOM: a folder's one loop, of MR or a film, among stills and objects that are no images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import BadInput, listed
from ...files import sha256
from ..dicom.copies import alike
from ..dicom.find import dicom_files
from ..dicom.headers import Header, read_header
from ..provenance import Provenance
from . import film, mr
from .cine import Cine
from .kinds import Kind


def read_dicom(path: Path) -> Cine:
    """The one loop below a folder, or in a file of many frames. Raises BadInput where there are none or several.

    A file that cannot be read may be a frame, so it is refused by name.
    """
    loop = find(path)
    if isinstance(loop, Header):
        return replace(film.read_film(path, _file(loop)), series=loop.series)
    return mr.read_mr(path, loop)


def write_dicom(cine: Cine, like: Cine, path: Path, provenance: Provenance | None = None) -> None:
    """A folder `path`: a derived series, `0001.dcm` on, in the study of its source. Raises ValueError without provenance, and
    BadInput where the standard does not bear what the source holds.
    """
    from ...files import whole
    from ..dicom.told import writing
    from .write_film import write_film
    from .write_mr import write_mr

    if provenance is None:
        raise ValueError("a DICOM result says what made it: give its provenance")
    loop = find(like.source)
    with whole(path) as part, writing():
        if isinstance(loop, Header):
            write_film(cine, like, part, (_file(loop), provenance))
        else:
            write_mr(cine, like, part, (mr.loops_of(loop), provenance))


def find(path: Path) -> Header | Sequence[Header]:
    """Of the file of a film, or of the images of an MR series."""
    headers = _distinct([header for file in dicom_files(path) if (header := read_header(file)) is not None])
    films = [one for one in headers if one.aside and film.is_film(_file(one))]
    by_series: dict[str, list[Header]] = {}
    for one in headers:
        by_series.setdefault(one.series.uid, []).append(one)
    loops = [series for series in by_series.values() if mr.is_loop(series)]
    if len(films) + len(loops) == 1:
        _check_patient(films or loops[0], headers)
        return films[0] if films else loops[0]
    if films or loops:
        names = [*(str(one[0].series) for one in loops), *(f"file {_file(one).name}" for one in films)]
        raise BadInput(f"{path}: holds {len(names)} loops ({listed(names)}); give the folder of one series, or one file")
    raise BadInput(f"{path}: {_why(headers)}")


def _distinct(headers: Sequence[Header]) -> list[Header]:
    """Without copies of an image; some senders give images of other places or times one instance UID."""
    kept: dict[tuple[object, ...], Header] = {}
    for key, members in alike(headers).items():
        for one in members:
            own = (*key, _content(one) if len(members) > 1 else "")
            if own not in kept or kept[own].damage:  # of two copies the whole one counts
                kept[own] = one
    return list(kept.values())


def _content(header: Header) -> str:
    """What tells images apart that share instance UID and place: of MR what they say of time, of films the whole file."""
    return str([*mr.marks_of(header.slices).values()]) if header.slices else sha256(_file(header))


def _check_patient(loop: Sequence[Header], headers: Sequence[Header]) -> None:
    """Raise BadInput where a loop, or its study, is of several patients: a result would name one of them."""
    studies = {one.series.study_uid for one in loop}
    patients = {one.series.patient_id for one in headers if one.series.study_uid in studies} - {""}
    if len(patients) > 1:
        raise BadInput(f"{loop[0].series} is of a study of {len(patients)} patients; separate them first")


def _file(header: Header) -> Path:
    return Path(header.series.files[0])


def _why(headers: Sequence[Header]) -> str:
    """Why a folder holds no loop."""
    problems = [f"{one.series} {one.series.problem}" for one in headers if one.series.problem]
    if problems:
        return f"holds no cine: {problems[0]}"
    if not headers:
        return "holds no DICOM images; give the folder of a cine series"
    return f"holds no cine: {headers[0].series} is a single frame at each place; give the folder of the whole loop"


KIND = Kind(read_dicom, write_dicom)
