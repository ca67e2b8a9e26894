# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts report`: from what a run left on disk to a page for every case and one for all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.data.utils import affine_to_spacing
from monai.utils.misc import ensure_tuple

from ..data import find_cases
from ..data.cases import folder_of
from ..data.dicom import DicomSeries
from ..data.dicom.find import find_series
from ..data.identifiers import FILE
from ..errors import BadInput, one_line
from ..files import sha256, write_text
from ..measurement import Task
from ..running.record import record
from .page import CasePage, case_page, group_page
from .planes_figure import planes_figure
from .volumes import CaseVolumes, Files, load_case

NOT_FOR_DIAGNOSIS = "Synthetic, not for diagnosis."
PAGE, PICTURE = "report.html", "planes.png"
UNKNOWN = "task unknown: no record says it; give --conditions"
DIGITS = 12  # of a result's sha256, by which a rating is known to be of it
BESIDE = {
    "{case}_pred.nii.gz": "result (NIfTI)",
    "{case}_uncertainty.nii.gz": "uncertainty (NIfTI)",
    "{case}_interval.nii.gz": "interval (NIfTI)",
    "pred": "result (folder of DICOM files)",
    "uncertainty.dcm": "uncertainty (DICOM)",
    "interval.dcm": "interval (DICOM)",
}


def report(
    run_dir: str, *, dataset_dir: str | None = None, truth_dir: str | None = None, datalist: str | None = None,
    max_cases: int | None = None, name: str | None = None, above: str = f"../{PAGE}", **task: Any,
) -> Path:  # fmt: skip
    """Write `run_dir/<case>/report.html` and `planes.png` for every case with a result, and `run_dir/report.html`; returns
    the latter.

    run_dir: the output_dir of inference.yaml or evaluate.yaml, whose record tells which files were read. dataset_dir,
    datalist: as the run had them, where those files have moved. truth_dir: a folder with the targets, for a run that was not
    evaluated. name: what the pages call the case of a run that has one; above: where a case's page leads to, as to all cases.
    task: `conditions`, `target` and `block` where they are not those of the record, else of the default configs.
    A case that cannot be shown is named on the group's page. Raises BadInput when there is no result at all.
    """
    folder = Path(run_dir).expanduser()
    results = record(folder)
    place = place_of_results(folder, results)
    cases = cases_of(place, results.get("failures", {}))
    what, simulated = _task(results, task), "mean" in results  # an evaluation, which measures fine volumes itself
    sources = {case: _recorded(source) for case, source in results.get("sources", {}).items()}
    if dataset_dir is not None and datalist is None and (moved := _moved(sources, dataset_dir)):
        sources, dataset_dir = moved, None
    folders = {"dataset_dir": dataset_dir, "truth_dir": truth_dir, "datalist": datalist}
    identifiers = file if (file := folder / FILE).exists() else None
    for case, given in _sources(what, with_target=simulated and truth_dir is None, identifiers=identifiers, **folders).items():
        sources[case] = _same(sources.get(case, {}), given, truths=truth_dir is not None)
    of_run = results.get("cases", cases)  # what else lies there has another task, other weights or samples
    unseen = {case: "is of an earlier run, of which this record says nothing" for case in cases if case not in of_run}
    cases = [case for case in cases if case in of_run]
    pages: dict[str, tuple[str, str]] = {}
    shown = cases[:max_cases]
    for number, case in enumerate(shown, start=1):
        try:
            files = _files(place / case, sources.get(case, {}))
            compared = simulated or truth_dir is not None
            volumes = load_case(files, what, simulated=simulated, compared=compared, **_alignment(results))
            digest = digest_of(files.result)
            page = case_page(CasePage(case, name or case, above, volumes, what, results, digest, _beside(folder / case)))
        except (ValueError, OSError) as error:  # as MONAI's and Pillow's
            unseen[case] = one_line(error)
            print(f"{number} of {len(shown)}: {case} has no page: {unseen[case]}")
            continue
        pages[case] = f"{case}/{PAGE}", digest
        write_text(folder / case / PAGE, page)
        title, spacing = f"{name or case}. {NOT_FOR_DIAGNOSIS}", spacing_of(volumes)
        planes_figure(volumes.volumes, folder / case / PICTURE, title, spacing=spacing, axes=what.axes, own=volumes.own)
        print(f"{number} of {len(shown)}: {folder / case / PAGE}, {len(page) / 1e6:.1f} MB")
    write_text(folder / PAGE, group_page(results, what, pages=pages, unseen=unseen, name=folder.resolve().name))
    print(folder / PAGE)
    return folder / PAGE


def recorded_case(folder: Path, case: str) -> CaseVolumes:
    """The volumes of a case of a run, from the files that its record names. Raises BadInput when the result cannot be read."""
    results = record(folder)
    source = _recorded(results.get("sources", {}).get(case, {}))
    files = _files(place_of_results(folder, results) / case, source)
    return load_case(files, _task(results, {}), simulated="mean" in results, **_alignment(results))


def spacing_of(volumes: CaseVolumes) -> list[float]:
    """Sides of its voxels, in mm."""
    return [float(side) for side in affine_to_spacing(volumes.affine)]


def place_of_results(folder: Path, results: Mapping[str, Any]) -> Path:
    """Where the results lie that a record in `folder` is of: there, or where an evaluation found and measured them.

    Raises BadInput where those are not found any more.
    """
    told = results.get("system", {}).get("predictions")
    if not isinstance(told, str) or "mean" not in results:
        return folder
    if not (place := Path(told).expanduser()).is_dir():
        fact = f"is an evaluation of the results in {told}, and from here there is no such folder"
        raise BadInput(f"{folder}: {fact}; call it from where evaluate was called")
    return place


def cases_of(folder: Path, failures: Mapping[str, str]) -> list[str]:
    """Cases with a result; one of a case that failed is from an earlier run."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: there is no such folder; give the output_dir of a run")
    cases = [place.name for place in sorted(folder.iterdir()) if (place / f"{place.name}_pred.nii.gz").is_file()]
    if not cases and not failures:
        raise BadInput(f"{folder}: holds no <case>/<case>_pred.nii.gz; give the output_dir of inference.yaml or evaluate.yaml")
    return [case for case in cases if case not in failures]


def digest_of(result: Path) -> str:
    """What tells a result from others: a rating is of it alone."""
    return sha256(result)[:DIGITS]


def _task(results: Mapping[str, Any], given: Mapping[str, Any]) -> Task:
    """That of the record, but for what is given; without either read as of the default configs, and called unknown."""
    known = {key: value for key, value in given.items() if value is not None}
    if "block" in known:
        known["blocks"] = [known.pop("block")]
    recorded = results.get("task") or results.get("system", {})
    told = {"conditions": ["t1"], "block": [4, 4, 4], **recorded, **known, **({"title": ""} if known else {})}
    if not (known or recorded.get("conditions")):
        told["title"] = UNKNOWN
    return Task.of({"target": told["conditions"][0], **told})


def _alignment(results: Mapping[str, Any]) -> dict[str, bool]:
    """How the run brought its files onto one grid."""
    return {key: bool(results.get("system", {}).get(key)) for key in ("resample", "register")}


def _recorded(source: Mapping[str, Any]) -> dict[str, Any]:
    """`image` and `label` of a record, with DICOM series in place of what it tells of them."""

    def read(told: Any) -> Any:
        return DicomSeries.of(told) if isinstance(told, Mapping) else told

    return {key: [read(one) for one in told] if isinstance(told, list) else read(told) for key, told in source.items()}


def _moved(sources: Mapping[str, Mapping[str, Any]], dataset_dir: str) -> dict[str, dict[str, Any]]:
    """Sources with the series of a record as they lie in another folder, by their UIDs; nothing where it holds no DICOM."""
    if not any(isinstance(one, DicomSeries) for of in sources.values() for each in of.values() for one in ensure_tuple(each)):
        return {}
    there = {(one.uid, one.part): one for one in find_series(folder_of(dataset_dir)).series}

    def now(one: Any) -> Any:
        return there.get((one.uid, one.part), one) if isinstance(one, DicomSeries) else one

    return {
        case: {key: [now(one) for one in of] if isinstance(of, list) else now(of) for key, of in of_case.items()}
        for case, of_case in sources.items()
    }


def _same(recorded: Mapping[str, Any], given: Mapping[str, Any], *, truths: bool) -> dict[str, Any]:
    """What was given for a case, but for other series or files than the run read: the record's stand, wherever they are.

    truths: whether these were given in a folder of their own, which may call them as it likes.
    """

    def named(source: Any) -> Any:
        sources = source if isinstance(source, list) else [source]
        return [(one.uid, one.part) if isinstance(one, DicomSeries) else Path(one).name for one in sources]

    both = (recorded.keys() & given.keys()) - ({"label"} if truths else set())
    others = {key for key in both if named(recorded[key]) != named(given[key])}
    return {**recorded, **{key: source for key, source in given.items() if key not in others}}


def _sources(
    task: Task,
    *,
    with_target: bool,
    dataset_dir: str | None,
    truth_dir: str | None,
    datalist: str | None,
    identifiers: Path | None,
) -> dict[str, dict[str, Any]]:
    """Of every case the paths `image` (a list) and `label`, as far as there are folders to look in."""
    sources: dict[str, dict[str, Any]] = {}
    target = task.target if with_target else None
    if dataset_dir is not None:
        cases = find_cases(dataset_dir, task.conditions, target=target, datalist=datalist, identifiers=identifiers)
        sources = {case["case"]: case for case in cases}
    if truth_dir is not None:
        for case in find_cases(truth_dir, [task.target], identifiers=identifiers):
            sources.setdefault(case["case"], {})["label"] = case["image"][0]
    return sources


def _beside(folder: Path) -> dict[str, str]:
    """What a run left of a case, by the name a page links to it, and what that is."""
    names = {pattern.format(case=folder.name): what for pattern, what in BESIDE.items()}
    return {f"{name}/" if (folder / name).is_dir() else name: what for name, what in names.items() if (folder / name).exists()}


def _files(folder: Path, source: Mapping[str, Any]) -> Files:
    result, *maps = (folder / f"{folder.name}_{word}.nii.gz" for word in ("pred", "uncertainty", "interval"))
    uncertainty, interval = (path if path.is_file() else None for path in maps)
    return Files(result, uncertainty, interval, source.get("image"), source.get("label"))
