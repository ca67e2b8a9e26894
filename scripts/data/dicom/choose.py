# SPDX-License-Identifier: Apache-2.0
"""Which series of a study is its t1, t1ce, t2 or flair, and why."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput, listed
from .find import IN_TIME, find_series, too_small
from .series import DicomSeries, affine_of
from .words import weighting

logger = logging.getLogger(__name__)

Studies = dict[str, list[DicomSeries]]

PLANES = ("axial", "sagittal", "coronal")  # preferred in this order
ISOTROPIC = 1.3  # at most, of the largest to the smallest side of a voxel
ISOTROPIC_MM = 2.0
GRID_MM = 0.01


def find_studies(root: str | Path) -> tuple[Studies, list[str]]:
    """Studies by a name that is a file name, with all their series, and a line for each file that cannot be read."""
    found = find_series(root)
    series = [one if one.problem else replace(one, problem=too_small(one)) for one in found.series]
    by_study: dict[str, list[DicomSeries]] = {}
    for one in series:
        by_study.setdefault(one.study_uid, []).append(one)
    names = {uid: study_name(study[0]) for uid, study in by_study.items()}
    count = Counter(name.lower() for name in names.values())  # some file systems ignore the case of letters
    unique = {uid: name if count[name.lower()] == 1 else f"{name}_{_hash(uid)}" for uid, name in names.items()}
    return dict(sorted((unique[uid], study) for uid, study in by_study.items())), found.refused


def choose(
    study: Sequence[DicomSeries], word: str, rules: Mapping[str, str], beside: Sequence[Sequence[DicomSeries]] = ()
) -> tuple[DicomSeries, str] | None:
    """The series that is this modality, and why; None when there is none.

    rules: by modality, a regular expression that is searched in `DicomSeries.label`, without regard to case; it alone
    decides. Otherwise the description decides, and where it says nothing the sequence's parameters; originals come
    before derived series, and then `PREFERENCES` decide, which becomes a doubt of the one that is taken.
    beside: for each other modality the series that could be it. The chosen one has a `problem` when none is usable or
    several fit equally well.
    """
    fitting = _fitting(study, word, rules)
    sound = [pair for pair in fitting if not pair[0].problem]
    best = [pair for pair in sound if not pair[0].derived] or sound or fitting
    if len(sound) < 2 or len(best) < 2:
        return best[0] if best else None
    preferred, reasons = best, []
    for reason, rank in PREFERENCES:
        ranks = [rank(one, beside) for one, _ in preferred]
        if max(ranks) > min(ranks):
            preferred = [pair for pair, own in zip(preferred, ranks, strict=True) if own == max(ranks)]
            reasons.append(reason)
    others = [str(one) for one, _ in best if one is not preferred[0][0]]
    if len(preferred) > 1:
        tied = [str(one) for one, _ in preferred[1:]]
        remedy = "say which with series_rules (docs/dicom.md#which-series)"
        problem = f"and {listed(tied, ' and ')} could {'both' if len(tied) == 1 else 'all'} be {word}; {remedy}"
        return replace(preferred[0][0], problem=problem), ""
    chosen, why = preferred[0]
    choice = (
        f"{chosen} is taken for {word} and not {listed(others, ' and ')}: {', '.join(reasons)}; series_rules decides otherwise"
    )
    return replace(chosen, doubts=(*chosen.doubts, choice)), why


def _fitting(study: Sequence[DicomSeries], word: str, rules: Mapping[str, str]) -> list[tuple[DicomSeries, str]]:
    if word in rules:
        return [(one, f"rule {rules[word]}") for one in study if _compiled(word, rules[word]).search(one.label)]
    return [(one, why) for one in study for use, why in [weighting(one)] if use == word and not one.exclusion]


def _isotropic(one: DicomSeries, beside: Sequence[Sequence[DicomSeries]]) -> int:
    return max(one.spacing) <= min(ISOTROPIC * min(one.spacing), ISOTROPIC_MM)


def _shared_grids(one: DicomSeries, beside: Sequence[Sequence[DicomSeries]]) -> int:
    """For how many other modalities there is a series on its grid."""
    return sum(any(_same_grid(one, other) for other in others) for others in beside)


def _same_grid(one: DicomSeries, other: DicomSeries) -> bool:
    if one.shape != other.shape or not other.position:
        return False
    corners = np.array([(*corner, 1) for corner in product(*((0, side - 1) for side in one.shape))])
    return bool(np.abs((affine_of(one) - affine_of(other)) @ corners.T).max() <= GRID_MM)


def _plane(one: DicomSeries, beside: Sequence[Sequence[DicomSeries]]) -> tuple[int, int]:
    """That of series of other modalities first, then the usual one."""
    shared = sum(any(one.plane == other.plane for other in others) for others in beside)
    return shared, -PLANES.index(one.plane) if one.plane in PLANES else -len(PLANES)


def _dixon(one: DicomSeries, beside: Sequence[Sequence[DicomSeries]]) -> int:
    """In phase, as images without a separation are, before water."""
    words = set(re.split(r"[^A-Z]+", f"{one.description} {one.part} {' '.join(one.image_type)}".upper()))
    return 2 if words & {"IP", "IN", "INPHASE"} else 0 if words & {"W", "WATER"} else 1


PREFERENCES: tuple[tuple[str, Callable[[DicomSeries, Sequence[Sequence[DicomSeries]]], Any]], ...] = (
    ("isotropic", _isotropic),
    ("on the grid of another condition", _shared_grids),
    ("by its plane", _plane),
    ("normalised (NORM)", lambda one, _: "NORM" in one.image_type),
    ("in phase", _dixon),
)


def choose_cases(
    root: Path, studies: Studies, words: Sequence[str], rules: Mapping[str, str], *, refused: bool = False
) -> dict[str, dict[str, DicomSeries]]:
    """The series of each study for these modalities; a study that lacks one is left out with a warning.

    One whose series have a problem stays, to fail by name among the others. Raises BadInput when no study is usable, those
    with a problem counted only if they are to be `refused` by name.
    """
    cases: dict[str, dict[str, DicomSeries]] = {}
    lacking = []
    for name, study in studies.items():
        chosen = _together(study, words, rules)
        missing = [word for word, pair in chosen.items() if pair is None]
        if missing:
            lacking.append(f"case {name}: no series is {' or '.join(missing)}; {_seen(study, rules)}")
            continue
        cases[name] = {}
        for word, (series, why) in ((word, pair) for word, pair in chosen.items() if pair is not None):
            cases[name][word] = series
            if not series.problem:
                logger.info("case %s: %s is %s (%s)", name, word, series, why)
    failures = [f"case {name}: {one} {one.problem}" for name, chosen in cases.items() for one in chosen.values() if one.problem]
    if not (cases and refused) and all(any(one.problem for one in chosen.values()) for chosen in cases.values()):
        first, *others = [*failures, *lacking]
        more = f" (and {len(others)} more; python -m scripts doctor {root} lists all)" if others else ""
        raise BadInput(f"{first}{more}")
    for line in lacking:
        logger.warning("left out: %s", line)
    return cases


def _together(
    study: Sequence[DicomSeries], words: Sequence[str], rules: Mapping[str, str]
) -> dict[str, tuple[DicomSeries, str] | None]:
    """A choice for each modality, the later ones beside what was chosen before."""
    beside = {word: [one for one, _ in _fitting(study, word, rules) if not one.problem] for word in words}
    chosen = {}
    for word in words:
        chosen[word] = pair = choose(study, word, rules, [others for other, others in beside.items() if other != word])
        if pair is not None and not pair[0].problem:
            beside[word] = [pair[0]]
    return chosen


def _compiled(word: str, rule: str) -> re.Pattern[str]:
    try:
        return re.compile(rule, re.IGNORECASE)
    except re.error as error:
        raise BadInput(f"series_rules: {rule!r} for {word} is no regular expression ({error}); mend it") from error


def _seen(study: Sequence[DicomSeries], rules: Mapping[str, str]) -> str:
    usable = [one for one in study if not one.problem]
    if not usable:
        return listed(describe(study), "; ")
    seen = [f"{line}: {one.exclusion or weighting(one)[0] or 'unknown'}" for line, one in _films(usable)]
    return f"found {listed(seen)}; name one with series_rules (docs/dicom.md#which-series)"


def describe(study: Sequence[DicomSeries]) -> list[str]:
    """A line for each series: what it is and would be used for, or what is wrong; one for all the volumes of a film."""
    lines = []
    for name, one in _films(study):
        if one.problem:
            lines.append(f"{name} {one.problem}")
            continue
        sides, spacing = "x".join(map(str, one.shape)), " x ".join(f"{mm:.4g}" for mm in one.spacing)
        word, why = weighting(one)
        derived = ", derived: only where no original is" if one.derived else ""
        use = (
            f"{one.exclusion}; not used unless series_rules names it"
            if one.exclusion
            else f"{word or 'unknown'} ({why}{derived})"
        )
        lines.append(f"{name}: {one.plane}, {sides} voxels of {spacing} mm: {use}")
    return lines


def _films(study: Sequence[DicomSeries]) -> Iterator[tuple[str, DicomSeries]]:
    """The first of all volumes of a series that are alike, with a name that says how many there are."""
    films: dict[tuple[Any, ...], list[DicomSeries]] = {}
    for one in study:
        alike = one.uid, one.problem.split(":")[0], one.exclusion, one.plane, one.shape, one.spacing, weighting(one)
        films.setdefault(alike, []).append(one)
    for volumes in films.values():
        if len(volumes) >= IN_TIME:
            yield f"{volumes[0]} and {len(volumes) - 1} more volumes", volumes[0]
        else:
            yield from ((str(one), one) for one in volumes)


def study_name(series: DicomSeries) -> str:
    """Patient and date as a file name."""
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("._-")[:60] for word in (series.patient_id, series.study_date)]
    return "_".join(word for word in words if word) or f"study_{_hash(series.study_uid)}"


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:6]
