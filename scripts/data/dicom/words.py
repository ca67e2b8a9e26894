# SPDX-License-Identifier: Apache-2.0
"""What a series is by its description, as radiographers of many countries write it, else by its parameters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

from .series import DicomSeries


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The first that matches a description counts; what is no condition of ours has a word too, so that it is not taken for one.
DESCRIPTIONS = tuple(
    (word, re.compile(pattern))
    for word, pattern in (
        ("fieldmap", r"\b(field ?map\w*|gre field|fmap|b[01] ?(map|field)\w*|shim\w*|topup|spin echo field)\b"),
        ("spectroscopy", r"\b(csi|svs|spectro\w*)\b"),
        ("fmri", r"\b(sbref|fcmri|se epi|bold|fmri|resting|rsfmri|ep2d (bold|fid|pace))\b"),
        ("perfusion", r"\b(dsc|dce|asl|p?casl|perf\w*|ep2d perf|twist|dyn\w*|permeab\w*)\b"),
        ("dwi", r"\b(\w*dwi|dti|diff\w*|difu\w*|ep2d\w*|(?<!deep )resolve|tensor|hardi|noddi|dki|b ?\d{3,4})\b"),
        (
            "angiography",
            r"\b(\w*tof|c?e?mra|mrv|angio\w*|pca|phase contrast|(?<!ac )pc [23]d|[23]d pc|venc|flow(?! ?(comp|sat))|venog\w*"
            r"|inhance)\b",
        ),
        ("swi", r"\b(swi\w*|swan|t2w? ?star|hemo|merge|t2w? (ffe|fl[23]d|gre|fe)|gre t2|ven bold|fsbb)\b|\bt2w? ?\*"),
        (
            "t1",
            r"(?<![a-z])([se]|[23]d|iso|ce ?)?[tт]1w?i?(?!\d|rho)|\b(me?mp ?rage|mp2?rage|mp rage|(ir ?)?f?spgr|bravo|tfl)",
        ),
        ("flair", r"flair|dark ?fl|\bda ?fl\b|tirm dark|t2 (tirm|spc ir)|spc ir"),
        ("t2", r"(?<![a-z])([se]|[23]d|iso)?[tт]2w?i?(?!\d)"),
        ("pd", r"(?<![a-z])(pdw?|proton|dp)\b"),
        ("stir", r"\b(stir|tirm)\b"),
        ("fmri", r"\brest\b"),  # beside any of the others REST are saturation slabs
    )
)
# A contrast agent by its names, the words before it that say it was given or not, and what may stand between them.
AGENT = re.compile(
    r"gad\w*|gd\w{0,4}|km|kl|mdc|mc|ce|kontr\w*|contr\w*|inj\w*|enh\w*|bolus|tehost\w*|dotarem|magnevist|prohance|omniscan|multihance"
    r"|clariscan|primovist|eovist|контраст\w*|造影\w*|增强\w*|조영\w*"
)
SHORT_AGENTS = frozenset({"c", "g", "k", "ca", "iv"})  # after one of the other words or a sign alone
NOT_GIVEN = _words(
    "pre no non not un minus without wo ohne sans sin senza o zonder ilman nem sem utan uden uten bez before prior vor avant "
    "antes prima voor innan for przed pred до без"
)
GIVEN = _words(
    "plus post nach apres avec con mit with w after dopo depois despues pos efter etter met com med po na s z \u0441 после "
    "t1 t1w"
)
FILLERS = _words("de del di da do du le la l d m of the to any i v von der")
NEVER_GIVEN = re.compile(
    r"nati[vf]\w*|plain|basale?|simple|nonenh\w*|unenh\w*|nc|kontrastsiz|平扫|.*(增强|造影|조영)(前|전)|単純\w*"
)
ANY_AGENT = frozenset({"post", "pos", "apres"})  # told by itself, unless it is of an operation
AT_THE_END = frozenset({"plus", "avec", "con", "mit", "with"})
OF_SOMETHING_ELSE = re.compile(
    r"op|oper\w*|surg\w*|sat\w*|scan|rt|rad\w*|tx|treat\w*|ther\w*|chemo|fossa|proc\w*|res\w*|biops\w*"
)
# Signs and joined words as words, so that "Gd(-)" is "gd minus" and "t1wpost" is "t1w post".
SIGNS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\bw ?/ ?o\w*|\bw o\b", " without "),
        (r"\bs ?/", " without "),
        (r"\bc ?/", " with "),
        (r"\bw/", " with "),
        (r"\( ?- ?\)|(?<=\w)-(?=\s|$)|(?<=\s)-(?= ?(c|gd|km|ce)\b)", " minus "),
        (r"\+", " plus "),
        (r"(t1w?i?)(?=(ce?|gd|km|gad\w*|post|pre|inj)(\b|_))", r"\1 "),
        (r"\b(pre|post|non|un|ce)(?=(contr|kontr|gad|gd|km|inj|enh|t1))", r"\1 "),
    )
)
# What stands for no agent where one is to be named, beside signs and zeros.
NO_AGENT = _words(
    "none n 0ml nein na nil null false unknown unspecified kein keine keines aucun aucune pas nessun nessuno ningun ninguno "
    "nenhum nenhuma geen ingen inget brak negative neg"
)
# The scanner's word for the weighting (Acquisition Contrast) in enhanced images.
CONTRASTS = {"T1": "t1", "T2": "t2", "FLUID_ATTENUATED": "flair", "PROTON_DENSITY": "pd", "DIFFUSION": "dwi"}

LOCALIZER = re.compile(
    r"(?<![a-z])(loc|lo[ck]ali[sz](?!ation)\w*|scout|survey|aahead|3 ?p(l|lane)|topogram|pilot|reperage|smart ?brain|plan scan"
    r"|calib\w*|asset ?cal\w*|^((ax|sag|cor) )?asset$|ref(erence)? scan|coil survey)(?![a-z])"
)
MAPS = frozenset(
    {
        *("ADC", "EADC", "FA", "TRACE", "TRACEW", "T1 MAP", "T2 MAP", "T2_STAR MAP", "B0 MAP", "FIELD_MAP", "MIP", "MINIP"),
        *("PROJECTION IMAGE", "SUBTRACT", "SUBTRACTION", "CBF", "CBV", "MTT", "TTP", "RCBF", "RCBV", "TMAX"),
        *("PHASE", "REAL", "IMAGINARY", "FAT", "OPPOSED PHASE"),
    }
)
# Words with two meanings count unless the next or last word gives the other: a flip angle, a subject, an encoding direction.
MAP_WORD = re.compile(
    r"(?<![a-z])(\w*adc|average dc|(col ?)?fa(?! ?=? ?\d|t)|tracew?|mip|min ?ip|(r|rel)?cb[fv]|pbp|gbp|pha images|mtt|ttp|tmax"
    r"|sub(?! ?\w*\d|j| ?mm| milli)(tract\w*)?|subs"
    r"|(?<!in )(?<!in-)(?<!opp )(?<!out )(?<!multi )(?<!swap )phase(?! ?\d)"
    r"(?! ([aprlhfsi]{1,2}|enc\w*|dir\w*|over\w*|corr\w*|sens\w*|cor|sag|tra|ax|cycl\w*|array|n?pw|wrap|os|swap|fov)\b)"
    r"|(?!road)\w*map(s|ping)?|mapit|inv ?[12]|real(?! ?time)|imag(inary)?|t1rho|r[12] ?\*|qsm)(?![a-z])"
)
DIXON_WORD = re.compile(
    r"\b(?:fat(?= ?:| images?)|(?:opp|out|opposed)(?: of)?[ _]?phase|outphase"
    r"|(?:\w*dixon|lava|ideal|flex)\b.* (?:f|fat|opp)$)(?![a-z])"
)
HEAD = re.compile(
    r"HEAD|BRAIN|SKULL|NEURO|CRAN|CEREB|FACE|ORBIT|PITUIT|SELLA|TEMPORAL|WHOLE ?BODY|SCHAEDEL|KOPF", re.IGNORECASE
)
# Of the neck and spine, which are scanned together with the head, and then under its name.
BELOW = (
    r"[ctl] ?-?sp(ine)?|\w*spine|[hbl]ws|rachis|columna|coluna|colonna|hals|wirbel\w*|cervical\w*|thora[ck]\w*|lumb\w*"
    r"|sacr\w*|[ctl]\d{1,2} ?- ?[ctls]\d{1,2}"
)
ELSEWHERE = re.compile(
    rf"\b((?P<below>{BELOW})|knee|knie|genou|rodilla|shoulder|schulter|hip|pelvis|becken|abdomen|liver|leber|kidney|heart"
    r"|cardiac|herz|prostat\w*|breast|mamma|wrist|ankle|foot|elbow)\b"
)


def plain(description: str) -> str:
    """Lower case, without accents, words apart; with the signs that say whether there was an agent."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z][a-z0-9])|(?<=\d[a-zA-Z])(?=[A-Z][a-z])", " ", description)
    ascii_first = unicodedata.normalize("NFKD", split.lower().replace("\u0131", "i").replace("ø", "o").replace("ł", "l"))
    bare = "".join(char for char in ascii_first if not unicodedata.combining(char) or ord(char) > 0x2FFF)
    return re.sub(r"\s+", " ", re.sub(r"[^\w+*()/:=-]|_", " ", unicodedata.normalize("NFC", bare))).strip()


def weighting(series: DicomSeries) -> tuple[str, str]:
    """The modality of a series, "" when nothing tells, and what told."""
    signs = plain(series.description)
    text = " ".join(re.sub(r"[()/:=-]", " ", signs).split())
    words = [word for word, pattern in DESCRIPTIONS if pattern.search(text)]
    word, why = words[0] if words else "", "by its description"
    if word == "t2" and "pd" in words and series.echo_time:
        word, why = ("t2" if series.echo_time >= 60 else "pd"), f"by its description and TE {series.echo_time:g} ms"
    if word == "flair" and "stir" in words and 0 < (series.inversion_time or 0) < 1000:
        word = "stir"
    if not word:
        word, why = _by_parameters(series)
    if word != "t1" or (given := agent_given(signs)) is False:
        return word, why
    if given:
        return "t1ce", why
    agent = agent_named(series.contrast_agent)
    return ("t1ce", f"{why}; contrast agent {agent}") if agent else (word, why)


def agent_named(text: str) -> str:
    """The contrast agent that a header names, "named" where by no word of ours, "" for none, in whatever words."""
    words = re.findall(r"[^\W_]+", plain(text).replace("/", ""))
    known = next((word for word in words if AGENT.fullmatch(word)), "")
    nothing = words[:1] == ["0"] or not any(re.search(r"[^\W\d]|[1-9]", word) for word in words)  # "0 ml", "--"
    if (nothing and not known) or words[0] in NO_AGENT | NOT_GIVEN or any(map(NEVER_GIVEN.fullmatch, words)):
        return ""
    return known or "named"


def agent_given(signs: str) -> bool | None:
    """Whether a description as `plain` writes it says that a contrast agent was given; None where it says nothing."""
    for pattern, words in SIGNS:
        signs = pattern.sub(words, signs)
    tokens = re.findall(r"\w+", signs)
    answers = {_given(tokens, at) for at in range(len(tokens))}
    return False if False in answers else True if True in answers else None


def _given(tokens: Sequence[str], at: int) -> bool | None:
    """What one word says, seen in its context."""
    token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
    before = next((word for word in reversed(tokens[:at]) if word not in FILLERS), "")
    if NEVER_GIVEN.fullmatch(token):
        return False
    named = AGENT.fullmatch(token) is not None
    if named or token in SHORT_AGENTS:
        if before in NOT_GIVEN or following == "minus":
            return False
        return True if named or before in GIVEN or following == "plus" else None
    if OF_SOMETHING_ELSE.fullmatch(following):
        return None
    if token == "pre" or (token in NOT_GIVEN and not following):
        return False
    return True if token in ANY_AGENT or (token in AT_THE_END and not following) else None


def exclusion(kinds: Collection[str], description: str, body_part: str) -> str:
    """Why a series of these image types is used only when a rule of the user names it, or ""."""
    text = plain(description)
    words = " ".join(re.sub(r"[()/:=-]", " ", text).split())
    if "LOCALIZER" in kinds or LOCALIZER.search(words):
        return "is a localizer"
    derived = MAP_WORD.search(words) or DIXON_WORD.search(text)
    maps = sorted(MAPS.intersection(kinds)) or ([derived.group()] if derived else [])
    if maps:
        return f"is a derived map or component ({maps[0]})"
    elsewhere = ELSEWHERE.search(text)
    if body_part and not HEAD.search(body_part):
        known = body_part if ELSEWHERE.fullmatch(plain(body_part)) else "another part"
        return f"is of {known}, not of the head"
    if not elsewhere or HEAD.search(text) or (body_part and not elsewhere["below"]):  # "hip" may be the hippocampus
        return ""
    return f"is of {elsewhere.group()}, not of the head"


def _by_parameters(series: DicomSeries) -> tuple[str, str]:
    if series.contrast in CONTRASTS:
        return CONTRASTS[series.contrast], f"by its acquisition contrast {series.contrast}"
    te, tr, ti = series.echo_time, series.repetition_time, series.inversion_time or 0.0
    if te is None or tr is None:
        return "", "neither description nor parameters tell"
    why = f"by TE {te:g}, TR {tr:g}" + (f", TI {ti:g}" if ti else "") + " ms"
    gradient_echo = "GR" in series.scanning_sequence
    if gradient_echo and "echo" in series.part:
        return "", f"{why}: one of several gradient echoes, as of a field map"
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
