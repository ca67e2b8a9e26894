# SPDX-License-Identifier: Apache-2.0
"""Which series of a study is its t1, t1ce, t2 or flair, and why."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import BadInput
from .find import find_series, too_small
from .series import DicomSeries

logger = logging.getLogger(__name__)

Studies = dict[str, list[DicomSeries]]

# The first that matches a description counts; what is no condition of ours has a word too, so that it is not taken for one.
DESCRIPTIONS = tuple(
    (word, re.compile(pattern))
    for word, pattern in (
        ("dwi", r"\b(dwi|dti|diff\w*|ep2d\w*)"),
        ("swi", r"\b(swi|t2 ?star|t2\*|hemo|merge)"),
        ("angiography", r"\b(tof|mra|mrv|angio\w*)"),
        ("perfusion", r"\b(dsc|dce|asl|perf\w*|pcasl)"),
        ("t1", r"\bt1|\b(mp2?rage|mp rage|fspgr|spgr|bravo|tfl)"),
        ("flair", r"flair|dark ?fluid"),
        ("t2", r"\bt2"),
        ("pd", r"\b(pd|proton)"),
    )
)
WITHOUT_AGENT = re.compile(
    r"(?<![a-z])(pre|without|w o|nativ|non? ?contrast|non ?enh|(no|ohne|sans|sin|senza) (contrast|gad|gd|km|mdc|c\b))|t1w?pre"
)
WITH_AGENT = re.compile(r"post|gad|\bgd|\+ ?c\b|\bc ?\+|contrast|(?<![a-z])(ce|km|mdc)\b|t1w?(ce|gd|c)\b")
NO_AGENT = frozenset({"", "no", "none", "n", "0"})
# The scanner's word for the weighting (Acquisition Contrast) in enhanced images.
CONTRASTS = {"T1": "t1", "T2": "t2", "FLUID_ATTENUATED": "flair", "PROTON_DENSITY": "pd", "DIFFUSION": "dwi"}


def find_studies(root: str | Path) -> tuple[Studies, list[str]]:
    """Studies by a name that is a file name, with all their series, and a line for each file that cannot be read."""
    found = find_series(root)
    series = [one if one.problem else replace(one, problem=too_small(one)) for one in found.series]
    by_study: dict[str, list[DicomSeries]] = {}
    for one in series:
        by_study.setdefault(one.study_uid, []).append(one)
    names = {uid: _name(study[0]) for uid, study in by_study.items()}
    count = Counter(name.lower() for name in names.values())  # some file systems ignore the case of letters
    unique = {uid: name if count[name.lower()] == 1 else f"{name}_{_hash(uid)}" for uid, name in names.items()}
    return dict(sorted((unique[uid], study) for uid, study in by_study.items())), found.refused


def choose(study: Sequence[DicomSeries], word: str, rules: Mapping[str, str]) -> tuple[DicomSeries, str] | None:
    """The series that is this modality, and why; None when there is none.

    rules: by modality, a regular expression that is searched in `DicomSeries.label`, without regard to case; it alone
    decides. Otherwise the description decides, and where it says nothing the sequence's parameters; originals come
    before derived series. The chosen one has a `problem` when none is usable or several fit equally well.
    """
    if word in rules:
        why = f"rule {rules[word]}"
        fitting = [(one, why) for one in study if _compiled(word, rules[word]).search(one.label)]
    else:
        fitting = [(one, why) for one in study for use, why in [weighting(one)] if use == word and not one.doubt]
    sound = [pair for pair in fitting if not pair[0].problem]
    best = [pair for pair in sound if not pair[0].derived] or sound or fitting
    if len(sound) > 1 and len(best) > 1:
        others = " and ".join(str(one) for one, _ in best[1:])
        remedy = "say which with series_rules (docs/dicom.md#which-series)"
        problem = f"and {others} could {'both' if len(best) == 2 else 'all'} be {word}; {remedy}"
        return replace(best[0][0], problem=problem), ""
    return best[0] if best else None


def choose_cases(
    root: Path, studies: Studies, words: Sequence[str], rules: Mapping[str, str]
) -> dict[str, dict[str, DicomSeries]]:
    """The series of each study for these modalities; a study that lacks one is left out with a warning.

    One whose series have a problem stays, to fail by name among the others. Raises BadInput when no study is usable.
    """
    cases: dict[str, dict[str, DicomSeries]] = {}
    lacking = []
    for name, study in studies.items():
        chosen = {word: choose(study, word, rules) for word in words}
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
    if all(any(one.problem for one in chosen.values()) for chosen in cases.values()):
        first, *others = [*failures, *lacking]
        more = f" (and {len(others)} more; python -m scripts doctor {root} lists all)" if others else ""
        raise BadInput(f"{first}{more}")
    for line in lacking:
        logger.warning("left out: %s", line)
    return cases


def weighting(series: DicomSeries) -> tuple[str, str]:
    """The modality of a series, "" when nothing tells, and what told."""
    text = re.sub(r"[^a-z0-9+*]+", " ", series.description.lower())
    word = next((word for word, pattern in DESCRIPTIONS if pattern.search(text)), "")
    why = "by its description"
    if not word:
        word, why = _by_parameters(series)
    if word == "t1" and not WITHOUT_AGENT.search(text):
        if WITH_AGENT.search(text):
            return "t1ce", why
        if series.contrast_agent.lower() not in NO_AGENT:
            return "t1ce", f"{why}; contrast agent {series.contrast_agent}"
    return word, why


def _by_parameters(series: DicomSeries) -> tuple[str, str]:
    if series.contrast in CONTRASTS:
        return CONTRASTS[series.contrast], f"by its acquisition contrast {series.contrast}"
    te, tr, ti = series.echo_time, series.repetition_time, series.inversion_time or 0.0
    if te is None or tr is None:
        return "", "neither description nor parameters tell"
    why = f"by TE {te:g}, TR {tr:g}" + (f", TI {ti:g}" if ti else "") + " ms"
    gradient_echo = "GR" in series.scanning_sequence
    if ti >= 1200 and te >= 60 and tr >= 4000:
        return "flair", why
    if te <= 15 and (500 <= ti <= 1300 or (gradient_echo and tr <= 400)):
        return "t1", why
    if gradient_echo or ti:
        return "", f"{why}: neither t1, t2 nor flair"
    if te >= 60 and tr >= 2000:
        return "t2", why
    if te <= 30 and tr <= 1200:
        return "t1", why
    return "", f"{why}: neither t1, t2 nor flair"


def _compiled(word: str, rule: str) -> re.Pattern[str]:
    try:
        return re.compile(rule, re.IGNORECASE)
    except re.error as error:
        raise BadInput(f"series_rules: {rule!r} for {word} is no regular expression ({error}); mend it") from error


def _seen(study: Sequence[DicomSeries], rules: Mapping[str, str]) -> str:
    usable = [one for one in study if not one.problem]
    if not usable:
        return "; ".join(_lines([f"{one} {one.problem}" for one in study]))
    seen = [f"{one}: {one.doubt or weighting(one)[0] or 'unknown'}" for one in usable]
    return f"found {', '.join(_lines(seen))}; name one with series_rules (docs/dicom.md#which-series)"


def _lines(texts: Sequence[str], most: int = 6) -> Iterable[str]:
    return [*texts[:most], *([f"{len(texts) - most} more"] if len(texts) > most else [])]


def _name(series: DicomSeries) -> str:
    """Patient and date as a file name."""
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("._-")[:60] for word in (series.patient_id, series.study_date)]
    return "_".join(word for word in words if word) or f"study_{_hash(series.study_uid)}"


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:6]
