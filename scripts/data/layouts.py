# SPDX-License-Identifier: Apache-2.0
"""What the place and name of a file say: whose it is, of which modality, and whether it can belong to a case at all."""

import re
from pathlib import Path

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
AGENT_WORDS = frozenset({"post", "gd", "gad", "ce", "contrast", "km", "gadolinium"})  # after which a t1 is a t1ce
WITHOUT_AGENT = frozenset(
    {"none", "no", "non", "pre", "nogd", "nativ", "native", "without", "precontrast", "0"}
)  # labels of ce-
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


def modality_of(word: str) -> str:
    """Ours for anybody's word."""
    return ALIASES.get(word.lower(), word.lower())


def why_no_case(path: Path, root: Path) -> str:
    """Why a file cannot belong to a case, whatever it is called, or ""."""
    above = path.relative_to(root).parts[:-1]
    if path.name[0] == ".":
        return "hidden"
    if "derivatives" in above:
        return "in derivatives"
    if len(above) >= DEEPEST:
        return "deeper than any layout"
    return "a result of ours" if _is_output(path) else ""


def place_of(path: Path, root: Path) -> tuple[str, str, int] | None:
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


def modalities_told(path: Path) -> set[str]:
    """Modalities that words anywhere in a name tell."""
    words = {modality_of(word) for word in re.split(r"[^A-Za-z0-9]+", stem(path))}
    found = words & MODALITIES
    return (found - {"t1"}) | {"t1ce"} if "t1" in found and words & AGENT_WORDS else found


def _is_output(path: Path) -> bool:
    """Whether it is called {case}_pred, or lies as {case}/{case}_pred_...; a case may be called pred itself."""
    name, case = stem(path).lower(), f"{path.parent.name.lower()}_"
    before, _, last = name.rpartition("_")
    following = name[len(case) :].split("_")[0] if name.startswith(case) else ""
    return (before != "" and last in OUTPUT_WORDS) or following in OUTPUT_WORDS
