# SPDX-License-Identifier: Apache-2.0
"""What the place and name of a file say: whose it is, of which modality, and whether it can belong to a case at all."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .bids import SHORT, entities
from .dicom.words import DESCRIPTIONS, LOCALIZER, MAP_WORD, agent_given, plain
from .formats import stem

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
AGENTS = frozenset({"gd", "gad", "ce", "contrast", "km", "gadolinium"})  # with which a t1 is a t1ce
AGENT_WORDS = AGENTS | {"post"}  # which may be after an operation, too
WITHOUT_AGENT = frozenset(
    {"none", "no", "non", "pre", "nogd", "nativ", "native", "without", "precontrast", "0"}
)  # labels of ce-
# What stands behind a t1 and says whether there was an agent: T1_CE, t1w-post-contrast, T1_pre, T1_no_contrast.
BEHIND_T1 = re.compile(
    r"(?<![^\W_])t1w?[-_. ]"
    r"(?:(?P<without>pre|nativ|native|(?:pre|no|non|without)[-_. ]?(?:gd|gad|ce|contrast|km|gadolinium))"
    r"|(?:post[-_. ]?)?(?:gd|gad|ce|contrast|km|gadolinium)|post)$",
    re.IGNORECASE,
)
INITIALS = re.compile(r"(?i:km|ce)|GD")  # agents that may be a patient's, where names begin with whose a scan is
NO_SCANS = frozenset({"mask", "masks", "brainmask", "label", "labels", "seg", "dseg", "aseg", "roi", "rois", "parc", "aparc"})
NOT_OF_NAMES = frozenset({"pilot", "real"})  # of studies and people, where in descriptions they are localizers and components
COMPONENTS = {"part": ("phase", "real", "imag"), "desc": ("mask",)}  # labels of BIDS that are no scan a radiologist looks at
OUTPUT_WORDS = frozenset({"pred", "uncertainty", "interval", "error"})

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
DEEPEST = 5  # path parts of an unprocessed HCP file

Place = tuple[str, str, int]  # case, modality and run
Places = dict[Path, Place]


def modality_of(word: str) -> str:
    """Ours for anybody's word."""
    return ALIASES.get(word.lower(), word.lower())


def why_no_case(path: Path, root: Path, chosen: Collection[str] = ()) -> str:
    """Why a file cannot belong to a case, whatever it is called, or "". chosen: entities that a filter asks for."""
    above = path.relative_to(root).parts[:-1]
    if path.name[0] == ".":
        return "hidden"
    if "derivatives" in above:
        return "in derivatives"
    if len(above) >= DEEPEST:
        return "deeper than any layout"
    return "a result of ours" if _is_output(path) else component(path, chosen)


def component(path: Path, chosen: Collection[str] = ()) -> str:
    """What a name of BIDS says it is instead of a scan, a phase image or a mask, or "". chosen: as for `why_no_case`."""
    given = entities(path) if path.name.startswith("sub-") else {}
    told = [f"{key}-{given[key]}" for key, no in COMPONENTS.items() if given.get(key) in no and key not in chosen]
    return f"no scan by its name ({told[0]})" if told else ""


def named_entities(bids_filter: Any) -> set[str]:
    """The entities that a filter asks for, of all modalities or of one."""
    asked = bids_filter if isinstance(bids_filter, Mapping) else {}
    keys = [str(key).lower() for one in (asked, *asked.values()) if isinstance(one, Mapping) for key in one]
    return {SHORT.get(key, key) for key in keys}


def place_of(path: Path, root: Path) -> Place | None:
    """Case, modality and run of a file, or None when its place follows no layout."""
    relative = path.relative_to(root).with_name(stem(path)).as_posix()
    match = next(filter(None, (layout.fullmatch(relative) for layout in LAYOUTS)), None)
    if match is None:
        return None
    parts = match.groupdict()
    modality = modality_of(parts["word"])
    agent = re.search(r"_ce-([A-Za-z0-9]+)", path.name)  # BIDS marks contrast in an entity, not in the suffix
    if modality == "t1" and agent and agent[1].lower() not in WITHOUT_AGENT:
        modality = "t1ce"
    names = [parts["case"] or root.resolve().name, parts.get("session")]
    return "_".join(name for name in names if name), modality, int(parts.get("run") or 0)


def places(files: Sequence[Path], root: Path, asked: Sequence[str]) -> tuple[Places, Places, Places]:
    """The files whose last word is a modality, those with an agent's word beside t1, and nameless ones; a later place counts.

    Where no name ends in a modality, every file of the folder itself is the one asked for, unless an agent tells another.
    What is none of our modalities may be a T1_CE by another word.
    """
    known = MODALITIES | set(asked)
    plain = {path: place for path in files if (place := place_of(path, root)) is not None and place[1] in known}
    alone = [path for path in files if path.parent == root] if not plain and len(asked) == 1 else []
    told = {path: place for path in alone or files if (place := _by_agent(path, root, plain.get(path))) is not None}
    nameless = {
        path: (stem(path), asked[0], 0)
        for path in alone
        if path not in told or told[path][1] == asked[0] or asked[0] not in MODALITIES
    }
    return plain, told, nameless


def _by_agent(path: Path, root: Path, plain: Place | None) -> Place | None:
    """The place by words beside a t1 that say whether there was an agent, as in T1_pre or Gd_t1. plain: by its last word."""
    if plain is not None:
        return (plain[0], "t1ce", plain[2]) if plain[1] == "t1" and _agent_before(path, root) else None
    behind = BEHIND_T1.search(stem(path))
    if behind is None:
        return None
    name = stem(path)[: behind.start()] + ("t1" if behind["without"] else "t1ce") + path.name[len(stem(path)) :]
    return place_of(path.with_name(name), root)


def _agent_before(path: Path, root: Path) -> bool:
    """Whether the word before the last one of a name, as in Gd_t1 or post-contrast.t1, is an agent that was given.

    A name of BIDS has an entity for it, and words of the case's own name tell nothing.
    """
    words = re.findall(r"[A-Za-z0-9]+", stem(path))[-3:]
    if len(words) < 2 or words[-2].lower() not in AGENTS or path.name.startswith("sub-"):
        return False
    if path.parent == root:
        of_case = INITIALS.fullmatch(words[-2]) is not None and words[0].lower() != "post"
    else:
        of_case = words[-2].lower() in re.findall(r"[a-z0-9]+", path.parent.name.lower())
    return not of_case and agent_given(plain(" ".join(words))) is True


def modalities_told(path: Path) -> set[str]:
    """Modalities that words anywhere in a name tell."""
    text = _without_labels(path)
    found = {modality_of(word) for word in re.split(r"[^A-Za-z0-9]+", text)} & MODALITIES
    agent = not AGENT_WORDS.isdisjoint(re.findall(r"[a-z0-9]+", plain(text))) and agent_given(plain(text)) is not False
    return (found - {"t1"}) | {"t1ce"} if "t1" in found and agent else found


def told_instead(path: Path, asked: str) -> str:
    """What a name tells that is no scan of the modality asked for: another, a mask, a map or a localizer; "" for nothing."""
    text, told = plain(_without_labels(path)), modalities_told(path)
    words = " ".join(re.findall(r"[a-z0-9*]+", text))
    if asked in MODALITIES - {"seg"}:
        odd = [word for word in words.split() if word in NO_SCANS]
        odd += [found.group() for found in (LOCALIZER.search(words), MAP_WORD.search(words)) if found]
        if odd := [word for word in odd if word not in NOT_OF_NAMES]:
            return odd[0]
        if not told:
            kinds = [kind for kind, pattern in DESCRIPTIONS if pattern.search(words)]
            return kinds[0] if kinds and not asked.startswith(kinds[0]) else ""
    return "" if asked in told else " and ".join(sorted(told))


def _without_labels(path: Path) -> str:
    """A name without whose it is and what BIDS says of an agent, whose words are none of a modality."""
    return re.sub(r"^sub[-_][^-_. ]+|(?<![^\W_])(?:ses|ce)-[^_]+", " ", stem(path))


def _is_output(path: Path) -> bool:
    """Whether it is called {case}_pred, or lies as {case}/{case}_pred_...; a case may be called pred itself."""
    name, case = stem(path).lower(), f"{path.parent.name.lower()}_"
    before, _, last = name.rpartition("_")
    following = name[len(case) :].split("_")[0] if name.startswith(case) else ""
    return (before != "" and last in OUTPUT_WORDS) or following in OUTPUT_WORDS
