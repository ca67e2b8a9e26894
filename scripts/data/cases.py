# SPDX-License-Identifier: Apache-2.0
"""Finding cases: which files of a folder are whose, of which modality, and for training or validation."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..errors import BadInput, listed, several
from .archive import content_of, unzip
from .bids import difference, entities, filter_for, fitting
from .dicom import DicomSeries
from .folder import OTHER_FORMATS, UNUSED_DICOM, CaseList, account, files_below, tell
from .formats import image_of, parts, stem, suffix
from .identifiers import Identifiers, anonymous, hide, words_of
from .layouts import MODALITIES, modalities_told, modality_of, named_entities, place_of, places, told_instead, why_no_case
from .splits import MOST, Split
from .splits import subject_of as subject_of

logger = logging.getLogger(__name__)

SPLITS = ("all", "train", "val")

ANOTHER = "of a modality of which another file was taken"
BESIDE = "volume files form cases"  # how what is said of DICOM beside them begins
ERROR = "error"  # the key of an entry that says why its case is refused


class _File(NamedTuple):
    path: Path
    run: int  # 0, or which of several acquisitions of the same modality
    by_agent: bool = False  # whether words beside its t1 tell the modality, as in T1_post


Cases = dict[str, dict[str, list[_File]]]


def first(cases: Sequence[Any], count: int | None) -> Sequence[Any]:
    """The first so many cases, or all. Raises BadInput for less than one."""
    if count is not None and count < 1:
        raise BadInput(f"max_cases {count}: give 1 and more, or leave it out")
    return cases[:count]


def find_cases(  # noqa: PLR0913  its arguments are keys of configs (docs/decisions.md)
    dataset_dir: str | Path, conditions: Sequence[str], *, target: str | None = None, split: str = "all",
    datalist: str | None = None, train_fraction: float = 0.8, series_rules: Mapping[str, str] | None = None,
    mask: str | None = None, bids_filter: Mapping[str, Any] | None = None, refused: bool = False,
    identifiers: str | Path | None = None,
) -> CaseList:  # fmt: skip
    """Cases as `{"case": name, "image": [path per condition], "label": path of the target}`, sorted by name.

    dataset_dir: a folder in any layout of docs/your_data.md, or DICOM, in place of whose paths stand `DicomSeries`; or a
    zip of one. conditions, target: modalities, as t1 t1ce t2 flair seg;
    without a target there is no "label"; it may be one of the conditions. split: "all", "train" or "val", by
    `splits.csv` in the folder, else the first `train_fraction` of the sorted subjects train. datalist: a JSON file in
    MONAI's decathlon form, instead of looking. series_rules: which DICOM series is which modality, as regular expressions.
    mask: a label map such as seg, which becomes "mask"; a case may lack it. A datalist names its own.
    bids_filter: which of several files of a modality, by the entities of BIDS, see `bids.filter_for`.
    identifiers: the file that keeps whose the cases from DICOM are, which are then named study-001 and so on, here and in the
    log; without it they are named by patient ID and date.
    Cases that lack a modality are left out with one warning, and so is one of which two files claim one place, or, with
    `refused`, it is {"case": name, "image": [], "error": line}. The list's `files` accounts for every file of the folder.
    Raises BadInput when nothing usable is found.
    """
    root = folder_of(dataset_dir, descend=datalist is None)
    if split not in SPLITS:
        raise BadInput(f"split {split}: there is no such split; choose one of {', '.join(SPLITS)}")
    wanted = [modality_of(word) for word in ([conditions] if isinstance(conditions, str) else conditions)]
    goal = None if target is None else modality_of(target)
    if datalist is not None:
        for name, rule in (("bids_filter", bids_filter), ("series_rules", series_rules)):
            if rule:
                raise BadInput(f"{name}: chooses among what a folder holds, but {datalist} lists the cases; leave one out")
        listed = _from_datalist(root, datalist, wanted, goal, Split(root, split, train_fraction))
        for entry in listed if mask is not None else []:
            if "mask" not in entry:
                logger.warning("case %s: has no mask in the datalist, so nothing is measured in it", entry["case"])
        return _accounted(root, listed, dict.fromkeys(files_below(root), "not in the datalist"), {}, set())
    asked = list(dict.fromkeys([*wanted, *([] if goal is None else [goal])]))
    everything, files = look(root, asked, named_entities(bids_filter))
    cases = _filtered(everything, bids_filter) if bids_filter else everything
    splits = Split(root, split, train_fraction)
    complete: Mapping[str, Mapping[str, Path | DicomSeries]]
    words: set[str] = set()
    if cases:
        taken = {case: _plainer(cases[case]) for case in splits.take(cases)}
        complete, lines = _complete(root, taken, asked, files, refused=refused)
        reasons = _reasons(everything, taken, asked)
        bad = {file.path: lines[case] for case in lines for m in asked for file in cases[case][m]}
    else:
        complete, bad, words = _from_dicom(root, splits, asked, series_rules or {}, identifiers, refused=refused)
        lines, reasons = {}, {}
        if not complete:
            _nothing_found(root, asked, files)
    entries = [_entry(case, [files[m] for m in wanted], files.get(goal or "")) for case, files in complete.items()]
    if mask is not None:
        entries = [_with_mask(entry, modality_of(mask), cases) for entry in entries]
    entries += [{"case": case, "image": [], ERROR: line} for case, line in lines.items()] if refused else []
    accounted = _accounted(root, sorted(entries, key=lambda entry: entry["case"]), reasons, bad, words)
    if cases:
        _warn_of_dicom(root, accounted.files)
    return accounted


def _warn_of_dicom(root: Path, files: Mapping[str, Any]) -> None:
    """Of a study with a converted copy beside it, whoever waits for a series would wait in vain."""
    if count := sum(group["count"] for group in files["left_out"] if group["reason"] == UNUSED_DICOM):
        fact = f"{BESIDE}, which leaves {several(count, 'DICOM file')} beside them unused"
        logger.warning("%s: %s; for DICOM give a folder without volume files", root, fact)


def _entry(case: str, image: Sequence[Path | DicomSeries], label: Path | DicomSeries | None) -> dict[str, Any]:
    sources = [str(source) if isinstance(source, Path) else source for source in (*image, label)]
    entry: dict[str, Any] = {"case": case, "image": sources[:-1]}
    return entry if label is None else {**entry, "label": sources[-1]}


def _with_mask(entry: dict[str, Any], mask: str, cases: Cases) -> dict[str, Any]:
    files = cases.get(entry["case"], {}).get(mask)
    if not files:
        logger.warning("case %s: has no %s, so nothing is measured in it", entry["case"], mask)
        return entry
    try:
        return {**entry, "mask": str(_the_one(entry["case"], mask, files))}
    except BadInput as error:
        logger.warning("%s; nothing is measured in it", error)
        return entry


def folder_of(dataset_dir: str | Path, *, descend: bool = True) -> Path:
    """The folder itself, what a zip holds, or a single file. Raises BadInput when there is none.

    descend: whether a folder that a zip holds alone stands for the zip, as where no list has paths from its top.
    """
    root = Path(dataset_dir).expanduser()
    if root.suffix.lower() == ".zip" and root.is_file():
        return content_of(unzip(root)) if descend else unzip(root)
    if not root.exists():
        raise BadInput(f"{dataset_dir}: there is no such folder or file; check the path")
    return image_of(root)


# Looking through a folder


def look(root: Path, asked: Sequence[str], chosen: Collection[str] = ()) -> tuple[Cases, list[Path]]:
    """Cases for these modalities or any that is known, and all files of volumes. chosen: entities that a filter asks for."""
    cases: Cases = {}
    if root.is_file():
        return _single(root, asked) if suffix(root) else ({}, [])
    files = [path for path in files_below(root) if suffix(path) and not why_no_case(path, root, chosen)]
    plain, told, nameless = places(files, root, asked)
    for path, (case, modality, run) in {**plain, **told, **nameless}.items():
        cases.setdefault(case, {}).setdefault(modality, []).append(_File(path, run, path in told))
    native = [path for path, place in {**plain, **told}.items() if place[1] == "t1"] if "t1" in asked else []
    _warn_of_names(root, "t1", {path: "t1ce" for path in native if "t1ce" in modalities_told(path)})
    _warn_of_names(root, " and ".join(asked), {path: told_instead(path, asked[0]) for path in nameless})
    return dict(sorted(cases.items())), files


def _warn_of_names(root: Path, asked: str, told: Mapping[Path, str]) -> None:
    """Of files taken as what is asked for, though their names may tell something else."""
    if doubtful := [f"{path.relative_to(root)} ({word})" for path, word in told.items() if word]:
        fact = f"taken as {asked}, though their names tell something else"
        logger.warning("%s: %s: %s; move away what is not", root, fact, listed(doubtful, most=MOST))


def _single(file: Path, asked: Sequence[str]) -> tuple[Cases, list[Path]]:
    """One file as a case: where a single volume is asked for it is that, whatever it is called."""
    place = place_of(file, file.parent)
    case, modality = place[:2] if place is not None and place[1] in MODALITIES | set(asked) else (stem(file), "")
    told = modality if modality not in ("", asked[0]) else told_instead(file, asked[0])
    if len(asked) == 1 and told:
        logger.warning("%s: taken as %s, though its name says %s", file, asked[0], told)
    return {case: {asked[0] if len(asked) == 1 else modality or "unknown": [_File(file, 0)]}}, [file]


def _nothing_found(root: Path, asked: Sequence[str], files: Sequence[Path]) -> NoReturn:
    seen = f"{len(files)} volume files, such as {_by_words(root, files)}" if files else "no volume or DICOM file"
    if other := [path.name for path in files_below(root) if path.name.lower().endswith(OTHER_FORMATS)]:
        seen += f" but {len(other)} files of formats that are not read, such as {other[0]}"
    elif lone := [path.name for path in files_below(root) if path.name.lower().endswith((".hdr", ".hdr.gz"))]:
        seen += f" but {lone[0]}, a header whose image is not beside it"
    raise BadInput(f"{root}: no case with {' and '.join(asked)}; found {seen}; see docs/your_data.md#layouts for names")


def _from_dicom(
    root: Path, split: Split, asked: Sequence[str], rules: Mapping[str, str], identifiers: str | Path | None, *, refused: bool
) -> tuple[dict[str, dict[str, DicomSeries]], dict[Path, str], set[str]]:
    """The series of complete cases, empty where there is no DICOM, why files cannot be read, and words that nobody may see."""
    from .dicom.choose import choose_cases, find_studies  # needs pydicom, which MONAI Label pins to an older version

    studies, unread = find_studies(root)
    patients = {case: study[0].patient_id for case, study in studies.items() if study[0].patient_id}
    taken = split.take(studies, patients) if studies else []
    bad, words = {Path(path): why for path, _, why in (line.partition(": ") for line in unread)}, set[str]()
    if identifiers is not None:
        words, names = words_of(studies), Identifiers(identifiers).names(studies)
        taken = [names[case] for case in taken]
        studies = {names[case]: [anonymous(one, words) for one in study] for case, study in studies.items()}
        unread = [hide(f"{Path(file).name}: {fact}", words) for file, _, fact in (line.partition(": ") for line in unread)]
    if unread and not studies:
        raise BadInput(f"{unread[0]}{f' (and {len(unread) - 1} more)' if len(unread) > 1 else ''}")
    for line in unread:
        logger.warning("%s", line)
    if not isinstance(rules, Mapping):
        raise BadInput(f"series_rules: {rules} names no modalities; see docs/dicom.md#which-series")
    rules = {modality_of(word): str(rule) for word, rule in rules.items()}
    of_split = {case: studies[case] for case in taken}
    chosen = choose_cases(root, of_split, asked, rules, refused=refused) if studies else {}
    return chosen, bad, words


# From all files to complete cases


def _complete(
    root: Path, cases: Cases, asked: Sequence[str], files: Sequence[Path], *, refused: bool
) -> tuple[dict[str, dict[str, Path | DicomSeries]], dict[str, str]]:
    """One file for each asked modality of every case that has them all, and a line for every case where it is not clear which.

    Raises BadInput when there is no case, those refused counted only if the caller wants them.
    """
    lacking = {case: [m for m in asked if not chosen.get(m)] for case, chosen in cases.items()}
    complete = [case for case in cases if not lacking[case]]
    if not complete:
        raise BadInput(f"{root}: none of {len(cases)} cases has {' and '.join(asked)}; {_seen(root, cases, files)}")
    if len(complete) < len(cases):
        left_out = [f"{case} (no {' and '.join(lacks)})" for case, lacks in lacking.items() if lacks]
        logger.warning("%s: left out %d of %d cases: %s", root, len(left_out), len(cases), listed(left_out, most=MOST))
    _warn_of_further_runs(root, {case: cases[case] for case in complete}, asked)
    chosen: dict[str, dict[str, Path | DicomSeries]] = {}
    lines = {}
    for case in complete:
        try:
            chosen[case] = {m: _the_one(case, m, cases[case][m]) for m in asked}
        except BadInput as error:  # one case to mend does not stop the others
            lines[case] = str(error)
            if not refused:
                logger.warning("%s", error)
    if not (chosen or refused):
        raise BadInput(next(iter(lines.values())))
    return chosen, lines


def _seen(root: Path, cases: Cases, files: Sequence[Path]) -> str:
    """Every modality of a folder: by file names, by words within names that follow no layout, and of DICOM."""
    counts = Counter(modality for modalities in cases.values() for modality, chosen in modalities.items() if chosen)
    parts = [f"modalities seen: {', '.join(f'{modality} ({number})' for modality, number in sorted(counts.items()))}"]
    placed = {file.path for modalities in cases.values() for several in modalities.values() for file in several}
    if others := [path for path in files if path not in placed]:
        parts.append(f"in names that end in no modality: {_by_words(root, others)}; rename them or give a datalist")
    if root.is_dir():
        from .dicom.choose import find_studies  # needs pydicom
        from .dicom.words import weighting

        series = [one for study in find_studies(root)[0].values() for one in study]
        if series:
            words = [f"{one} ({one.problem or weighting(one)[0] or 'unknown'})" for one in series]
            parts.append(f"in DICOM, not used beside volume files: {listed(words, most=MOST)}")
    return "; ".join(parts)


def _by_words(root: Path, files: Sequence[Path]) -> str:
    """Names, each with the modalities that words in it tell."""
    names = [path.relative_to(root) if root.is_dir() else path.name for path in files]
    words = [" and ".join(sorted(modalities_told(path))) or "unknown" for path in files]
    return listed([f"{name} ({word})" for name, word in zip(names, words, strict=True)], most=MOST)


def _filtered(cases: Cases, bids_filter: Mapping[str, Any]) -> Cases:
    """Of every case and modality the files that a filter chooses."""
    chosen: Cases = {}
    for case, modalities in cases.items():
        chosen[case] = {}
        for modality, files in modalities.items():
            names = [{**({"run": str(file.run)} if file.run else {}), **entities(file.path)} for file in files]
            chosen[case][modality] = [files[index] for index in fitting(names, filter_for(bids_filter, modality))]
    return chosen


def _plainer(modalities: Mapping[str, list[_File]]) -> dict[str, list[_File]]:
    """Of every modality the files that are called so, where there are any, and not those that words about an agent tell."""
    return {modality: [file for file in files if not file.by_agent] or files for modality, files in modalities.items()}


def _the_one(case: str, modality: str, files: Sequence[_File]) -> Path:
    """The only file, else the first of several acquisitions; anything else is for the user to decide."""
    candidates = [file for file in files if file.run == 0]
    if len(candidates) > 1:
        first, second, *_ = (file.path for file in candidates)
        remedy = difference(entities(first), entities(second)) or "move one away or give a datalist"
        raise BadInput(f"case {case}: {first} and {second} are both {modality}; {remedy}")
    return candidates[0].path if candidates else min(files, key=lambda file: file.run).path


def _warn_of_further_runs(root: Path, cases: Cases, asked: Sequence[str]) -> None:
    repeated = [
        case for case, files in cases.items() if any(len(files[m]) > 1 and all(file.run for file in files[m]) for m in asked)
    ]
    if repeated:
        logger.warning("%s: took the first of several runs in %d cases: %s", root, len(repeated), listed(repeated, most=MOST))


def _reasons(cases: Cases, taken: Cases, asked: Sequence[str]) -> dict[Path, str]:
    """Why a file with a place is not used, if it is not."""
    reasons: dict[Path, str] = {}
    for case, modalities in cases.items():
        lacks = [m for m in asked if not taken.get(case, {}).get(m)]
        why = "of another split" if case not in taken else f"of a case without {' and '.join(lacks)}" if lacks else ANOTHER
        for modality, files in modalities.items():
            reason = why if modality in asked else f"{modality}, which is not asked for"
            reasons |= {file.path: reason for file in files}
    return reasons


def _accounted(
    root: Path, entries: list[dict[str, Any]], reasons: Mapping[Path, str], refused: Mapping[Path, str], words: set[str]
) -> CaseList:  # fmt: skip
    """The entries with what became of every file. reasons, refused: as far as the search knows; words: that nobody may see."""
    sources = [source for entry in entries for source in (*entry["image"], entry.get("label"), entry.get("mask")) if source]
    series = [source for source in sources if isinstance(source, DicomSeries)]
    used = {Path(file) for one in series if not one.problem for file in one.files}
    used |= {part for source in sources if isinstance(source, str) for part in parts(Path(source))}
    bad = {**{Path(file): one.problem for one in series if one.problem for file in one.files}, **refused}
    everything = list(files_below(root))
    folder = root if root.is_dir() else root.parent
    why = {path: reasons.get(path) or why_no_case(path, folder) for path in everything}
    content = account(root, everything, used, why, bad)
    content = _hidden(content, words) if words else content
    tell(content)
    return CaseList(entries, content)


def _hidden(content: Any, words: set[str]) -> Any:
    """Plain values without words that tell who a patient is."""
    if isinstance(content, Mapping):
        return {hide(key, words): _hidden(value, words) for key, value in content.items()}
    if isinstance(content, list):
        return [_hidden(value, words) for value in content]
    return hide(content, words) if isinstance(content, str) else content


# Lists made by others


def _from_datalist(root: Path, datalist: str, wanted: Sequence[str], goal: str | None, split: Split) -> list[dict[str, Any]]:
    """Cases of a decathlon JSON; its own validation list wins over any other split."""
    file = root / Path(str(datalist)).expanduser()
    try:
        content = json.loads(file.read_bytes())
        lists = {name: list(content.get(name, [])) for name in ("training", "validation", "test")}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BadInput(f"{file}: is not a datalist ({error}); see docs/your_data.md#datalist") from error
    held_out = lists["validation"] or lists["test"]
    everyone = [*lists["training"], *lists["validation"], *lists["test"]]
    listed = {"all": everyone, "train": lists["training"], "val": held_out} if held_out else {}
    items = listed.get(split.name, everyone)
    entries = [_listed_entry(root, file, item, wanted, goal) for item in items]
    cases = {entry["case"]: entry for entry in entries}
    if not entries or len(cases) < len(entries):
        twice = [case for case, count in Counter(entry["case"] for entry in entries).items() if count > 1]
        fact = f'lists case {twice[0]} twice; add a "case" to each entry' if twice else "lists no case; fill it"
        raise BadInput(f"{file}: {fact}")
    return [cases[case] for case in (sorted(cases) if listed else split.take(cases))]


def _listed_entry(root: Path, file: Path, item: Any, wanted: Sequence[str], goal: str | None) -> dict[str, Any]:
    item = item if isinstance(item, Mapping) else {"image": item}
    image = item.get("image") or []
    image = [image] if isinstance(image, str) else list(image)
    if len(image) != len(wanted):
        raise BadInput(f"{file}: {image} should be one image for each condition, {' and '.join(wanted)}; list them in order")
    label = item.get("label")
    if goal in wanted and not label:  # the condition is simulated from the target: one file is both
        label = image[wanted.index(goal)]
    if goal is not None and not isinstance(label, str):
        raise BadInput(f'{file}: {image[0]} has no "label" for the target {goal}; add one')
    paths = [root / Path(path) for path in (*image, *([label] if goal is not None else []))]
    place = place_of(paths[0], root) if paths[0].is_relative_to(root) else None
    named = place[0] if place is not None and place[1] in MODALITIES | set(wanted) else stem(paths[0])
    entry = _entry(str(item.get("case", named)), paths[: len(image)], paths[-1] if goal is not None else None)
    return {**entry, "mask": str(root / item["mask"])} if isinstance(item.get("mask"), str) else entry
