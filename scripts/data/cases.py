# SPDX-License-Identifier: Apache-2.0
"""Finding cases: which files of a folder are whose, of which modality, and for training or validation."""

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..errors import BadInput
from .archive import unzip
from .dicom import DicomSeries
from .formats import stem, suffix

logger = logging.getLogger(__name__)

SPLITS = ("all", "train", "val")

# The words by which others call our modalities, in lower case. A word that is not here stands for itself.
ALIASES = {
    "t1w": "t1",
    "t1n": "t1",
    "t1c": "t1ce",
    "t1gd": "t1ce",
    "t1post": "t1ce",
    "t2w": "t2",
    "t2f": "flair",
    "t2flair": "flair",
    "dseg": "seg",
}
MODALITIES = frozenset({"t1", "t1ce", "t2", "flair", "seg"})
OUTPUT_WORDS = frozenset({"pred", "uncertainty", "error"})

# Paths below dataset_dir without the suffix of a volume; the first that matches counts.
LAYOUTS = tuple(
    re.compile(layout)
    for layout in (
        # Human Connectome Project, preprocessed: 100307/T1w/T1w_acpc_dc_restore_brain
        r"(?P<case>[^/]+)/T1w/(?P<word>T[12]w)_acpc_dc_restore_brain",
        # and unprocessed: 100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1
        r"(?P<case>[^/]+)/unprocessed/3T/(?P<word>T[12]w)_[A-Z]+(?P<run>\d+)/(?P=case)_3T_(?P=word)_[A-Z]+(?P=run)",
        # BIDS: sub-01/ses-1/anat/sub-01_ses-1_acq-x_T1w
        r"(?P<case>sub-[^/_]+)/(?:(?P<session>ses-[^/_]+)/)?anat/(?P=case)(?:_[a-z]+-[^/_]+)*_(?P<word>[^/_-]+)",
        # a folder per case, as BraTS: BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n, case0042/flair
        r"(?P<case>[^/]+)/(?:[^/]+[-_. ])?(?P<word>[^/_. -]+)",
        # one folder with BIDS names: sub-01_ses-1_T1w
        r"(?P<case>sub-[^/_]+)(?:_(?P<session>ses-[^/_]+))?(?:_[a-z]+-[^/_]+)*_(?P<word>[^/_-]+)",
        # one folder: sub-01_t1, or a single case in it: t1
        r"(?:(?P<case>[^/]+)[-_. ])?(?P<word>[^/_. -]+)",
    )
)
SUBJECT = re.compile(r"sub-[^_]+(?=_ses-)|BraTS-[A-Za-z]+-\d+(?=-\d+$)")
DEEPEST = 5  # path parts of an unprocessed HCP file
NAMED_AT_MOST = 20


class _File(NamedTuple):
    path: Path
    run: int  # 0, or which of several acquisitions of the same modality


Cases = dict[str, dict[str, list[_File]]]


def find_cases(
    dataset_dir: str | Path,
    conditions: Sequence[str],
    *,
    target: str | None = None,
    split: str = "all",
    datalist: str | None = None,
    train_fraction: float = 0.8,
    series_rules: Mapping[str, str] | None = None,
    mask: str | None = None,
) -> list[dict[str, Any]]:
    """Cases as `{"case": name, "image": [path per condition], "label": path of the target}`, sorted by name.

    dataset_dir: a folder in any layout of docs/your_data.md, or DICOM, in place of whose paths stand `DicomSeries`; or a
    zip of one. conditions, target: modalities, as t1 t1ce t2 flair seg;
    without a target there is no "label"; it may be one of the conditions. split: "all", "train" or "val", by
    `splits.csv` in the folder, else the first `train_fraction` of the sorted subjects train. datalist: a JSON file in
    MONAI's decathlon form, instead of looking. series_rules: which DICOM series is which modality, as regular expressions.
    mask: a label map such as seg, which becomes "mask"; a case may lack it. A datalist names its own.
    Cases that lack a modality are left out with one warning.
    Raises BadInput when nothing usable is found or two files claim one place.
    """
    root = folder_of(dataset_dir)
    if split not in SPLITS:
        raise BadInput(f"split {split}: there is no such split; choose one of {', '.join(SPLITS)}")
    wanted = [_modality(word) for word in ([conditions] if isinstance(conditions, str) else conditions)]
    goal = None if target is None else _modality(target)
    if datalist is not None:
        return _from_datalist(root, datalist, wanted, goal, _Split(root, split, train_fraction))
    asked = list(dict.fromkeys([*wanted, *([] if goal is None else [goal])]))
    cases, files = look(root, asked)
    splits = _Split(root, split, train_fraction)
    complete: Mapping[str, Mapping[str, Path | DicomSeries]]
    if cases:
        complete = _complete(root, {case: cases[case] for case in splits.take(cases)}, asked)
    else:
        complete = _from_dicom(root, splits, asked, series_rules or {}) or _nothing_found(root, asked, files)
    entries = [_entry(case, [files[m] for m in wanted], files.get(goal or "")) for case, files in complete.items()]
    return entries if mask is None else [_with_mask(entry, _modality(mask), cases) for entry in entries]


def subject_of(case: str) -> str:
    """Whose case it is: sessions of BIDS and time points of BraTS 2023 belong to one subject."""
    match = SUBJECT.match(case)
    return match.group() if match else case


def _entry(case: str, image: Sequence[Path | DicomSeries], label: Path | DicomSeries | None) -> dict[str, Any]:
    sources = [str(source) if isinstance(source, Path) else source for source in (*image, label)]
    entry: dict[str, Any] = {"case": case, "image": sources[:-1]}
    return entry if label is None else {**entry, "label": sources[-1]}


def _with_mask(entry: dict[str, Any], mask: str, cases: Cases) -> dict[str, Any]:
    files = cases.get(entry["case"], {}).get(mask)
    if not files:
        logger.warning("case %s: has no %s, so nothing is measured in it", entry["case"], mask)
        return entry
    return {**entry, "mask": str(_the_one(entry["case"], mask, files))}


def folder_of(dataset_dir: str | Path) -> Path:
    """The folder itself, what a zip holds, or a single file. Raises BadInput when there is none."""
    root = Path(dataset_dir).expanduser()
    if root.suffix.lower() == ".zip" and root.is_file():
        return unzip(root)
    if not root.exists():
        raise BadInput(f"{dataset_dir}: there is no such folder or file; check dataset_dir")
    return root


def _modality(word: str) -> str:
    return ALIASES.get(word.lower(), word.lower())


# Looking through a folder


def look(root: Path, asked: Sequence[str]) -> tuple[Cases, list[Path]]:
    """Cases for these modalities or any that is known, and all files of volumes."""
    known = MODALITIES | set(asked)
    cases: Cases = {}
    if root.is_file():
        return _single(root, asked) if suffix(root) else ({}, [])
    files = [path for path in _walk(root) if suffix(path) and not _is_output(path)]
    for path in files:
        place = _place(path, root)
        if place is not None and place[1] in known:
            case, modality, run = place
            cases.setdefault(case, {}).setdefault(modality, []).append(_File(path, run))
    flat = [path for path in files if path.parent == root]
    if not cases and flat and len(asked) == 1:  # nothing names a modality: every file is the one that is asked for
        for path in flat:
            cases.setdefault(stem(path), {}).setdefault(asked[0], []).append(_File(path, 0))
        if doubtful := [path.name for path in flat if _told(path) and asked[0] not in _told(path)]:
            fact = f"taken as {asked[0]}, though their names tell another modality"
            logger.warning("%s: %s: %s; move away what is not", root, fact, _some(doubtful))
    return dict(sorted(cases.items())), files


def _single(file: Path, asked: Sequence[str]) -> tuple[Cases, list[Path]]:
    """One file as a case: where a single volume is asked for it is that, whatever it is called."""
    place = _place(file, file.parent)
    case, modality = place[:2] if place is not None and place[1] in MODALITIES | set(asked) else (stem(file), "")
    if len(asked) == 1 and modality not in ("", asked[0]):
        logger.warning("%s: taken as %s, though its name says %s", file, asked[0], modality)
    return {case: {asked[0] if len(asked) == 1 else modality or "unknown": [_File(file, 0)]}}, [file]


def _walk(root: Path) -> Iterator[Path]:
    """Files that may belong to cases: nothing hidden, nothing derived, nothing deeper than any layout."""
    for folder, subfolders, names in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        subfolders[:] = sorted(name for name in subfolders if name != "derivatives" and name[0] != ".")
        if depth + 1 >= DEEPEST:
            subfolders.clear()
        yield from (Path(folder, name) for name in sorted(names) if name[0] != ".")


def _place(path: Path, root: Path) -> tuple[str, str, int] | None:
    """Case, modality and run of a file, or None when its place follows no layout."""
    relative = path.relative_to(root).with_name(stem(path)).as_posix()
    match = next(filter(None, (layout.fullmatch(relative) for layout in LAYOUTS)), None)
    if match is None:
        return None
    parts = match.groupdict()
    modality = _modality(parts["word"])
    if modality == "t1" and "_ce-" in path.name:  # BIDS marks contrast in an entity, not in the suffix
        modality = "t1ce"
    names = [parts["case"] or root.resolve().name, parts.get("session")]
    return "_".join(name for name in names if name), modality, int(parts.get("run") or 0)


def _told(path: Path) -> set[str]:
    """Modalities that words anywhere in a name tell."""
    return {_modality(word) for word in re.split(r"[^A-Za-z0-9]+", stem(path))} & MODALITIES


def _is_output(path: Path) -> bool:
    return not OUTPUT_WORDS.isdisjoint(re.split(r"[-_.]", stem(path).lower())[-2:])


def _nothing_found(root: Path, asked: Sequence[str], files: Sequence[Path]) -> NoReturn:
    seen = f"{len(files)} volume files, such as {files[0].relative_to(root)}" if files else "no volume or DICOM file"
    raise BadInput(f"{root}: no case with {_and(asked)}; found {seen}; see docs/your_data.md#layouts for names")


def _from_dicom(root: Path, split: _Split, asked: Sequence[str], rules: Mapping[str, str]) -> dict[str, dict[str, DicomSeries]]:
    """The series of complete cases, empty where there is no DICOM."""
    from .dicom.choose import choose_cases, find_studies  # needs pydicom, which MONAI Label pins to an older version

    studies, refused = find_studies(root)
    if refused and not studies:
        raise BadInput(f"{refused[0]}{f' (and {len(refused) - 1} more)' if len(refused) > 1 else ''}")
    for line in refused:
        logger.warning("%s", line)
    rules = {_modality(word): rule for word, rule in rules.items()}
    return choose_cases(root, {case: studies[case] for case in split.take(studies)}, asked, rules) if studies else {}


# From all files to complete cases


def _complete(root: Path, cases: Cases, asked: Sequence[str]) -> dict[str, dict[str, Path]]:
    """One file for each asked modality of every case that has them all."""
    lacking = {case: [m for m in asked if m not in files] for case, files in cases.items()}
    complete = [case for case in cases if not lacking[case]]
    if not complete:
        seen = Counter(modality for files in cases.values() for modality in files)
        counts = ", ".join(f"{modality} ({number})" for modality, number in sorted(seen.items()))
        raise BadInput(f"{root}: none of {len(cases)} cases has {_and(asked)}; modalities seen: {counts}")
    if len(complete) < len(cases):
        left_out = [f"{case} (no {_and(lacks)})" for case, lacks in lacking.items() if lacks]
        logger.warning("%s: left out %d of %d cases: %s", root, len(left_out), len(cases), _some(left_out))
    _warn_of_further_runs(root, {case: cases[case] for case in complete}, asked)
    chosen, unclear = {}, []
    for case in complete:
        try:
            chosen[case] = {m: _the_one(case, m, cases[case][m]) for m in asked}
        except BadInput as error:  # one case to mend does not stop the others
            unclear.append(error)
            logger.warning("%s", error)
    if not chosen:
        raise unclear[0]
    return chosen


def _the_one(case: str, modality: str, files: Sequence[_File]) -> Path:
    """The only file, else the first of several acquisitions; anything else is for the user to decide."""
    candidates = [file for file in files if file.run == 0]
    if len(candidates) > 1:
        first, second, *_ = (file.path for file in candidates)
        raise BadInput(f"case {case}: {first} and {second} are both {modality}; move one away or give a datalist")
    return candidates[0].path if candidates else min(files, key=lambda file: file.run).path


def _warn_of_further_runs(root: Path, cases: Cases, asked: Sequence[str]) -> None:
    repeated = [case for case, files in cases.items() if any(_are_runs(files[modality]) for modality in asked)]
    if repeated:
        logger.warning("%s: took the first of several runs in %d cases: %s", root, len(repeated), _some(repeated))


def _are_runs(files: Sequence[_File]) -> bool:
    return len(files) > 1 and all(file.run for file in files)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _and(words: Iterable[str]) -> str:
    return " and ".join(words)


# Splitting by subject


class _Split(NamedTuple):
    """Which cases are asked for: by the folder's own `splits.csv`, else by their place in the alphabet."""

    root: Path
    name: str
    train_fraction: float

    def take(self, cases: Iterable[str]) -> list[str]:
        """The cases of this split, sorted; all modalities' cases go in, so that every task splits alike."""
        everyone = sorted(cases)
        if self.name == "all":
            return everyone
        table = self.root / "splits.csv"
        names = _by_table(table, everyone) if table.is_file() else _by_fraction(everyone, self.train_fraction)
        taken = [case for case in everyone if names.get(case) == self.name]
        if not taken:
            rule = "splits.csv" if table.is_file() else f"train_fraction {self.train_fraction:g}"
            raise BadInput(f"{self.root}: no case of {len(everyone)} is in split {self.name}; change {rule}")
        return taken


def _by_fraction(cases: Sequence[str], train_fraction: float) -> dict[str, str]:
    subjects = sorted({subject_of(case) for case in cases})
    train = set(subjects[: int(len(subjects) * train_fraction + 1e-9)])
    return {case: "train" if subject_of(case) in train else "val" for case in cases}


def _by_table(table: Path, cases: Sequence[str]) -> dict[str, str]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or ()
        if len(header) < 2 or "split" not in header:
            raise BadInput(f"{table}: has no column split; give a case or subject in the first column, and its split")
        split_of = {row[header[0]].strip(): (row["split"] or "").strip().lower() for row in reader}
    names = {case: split_of.get(case, split_of.get(subject_of(case), "")) for case in cases}
    unnamed = [case for case, name in names.items() if not name]
    if unnamed:
        logger.warning("%s: names no split for %d cases, left out: %s", table, len(unnamed), _some(unnamed))
    by_subject: dict[str, str] = {}
    for case, name in names.items():
        if name and by_subject.setdefault(subject_of(case), name) != name:
            raise BadInput(f"{table}: subject {subject_of(case)} is in two splits; put all its cases into one")
    return names


# Lists made by others


def _from_datalist(root: Path, datalist: str, wanted: Sequence[str], goal: str | None, split: _Split) -> list[dict[str, Any]]:
    """Cases of a decathlon JSON; its own validation list wins over any other split."""
    file = root / Path(datalist).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
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
        raise BadInput(f"{file}: {image} should be one image for each condition, {_and(wanted)}; list them in order")
    label = item.get("label")
    if goal in wanted and not label:  # the condition is simulated from the target: one file is both
        label = image[wanted.index(goal)]
    if goal is not None and not isinstance(label, str):
        raise BadInput(f'{file}: {image[0]} has no "label" for the target {goal}; add one')
    paths = [root / Path(path) for path in (*image, *([label] if goal is not None else []))]
    place = _place(paths[0], root) if paths[0].is_relative_to(root) else None
    named = place[0] if place is not None and place[1] in MODALITIES | set(wanted) else stem(paths[0])
    entry = _entry(str(item.get("case", named)), paths[: len(image)], paths[-1] if goal is not None else None)
    return {**entry, "mask": str(root / item["mask"])} if isinstance(item.get("mask"), str) else entry
