# SPDX-License-Identifier: Apache-2.0
"""How to cite the method and this software: CITATION.cff as BibTeX."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import yaml

from .bundle import bundle_root
from .errors import BadInput

FILE = "CITATION.cff"
ARXIV = "arXiv:"


def cite() -> None:
    """Print an entry for each work that the file names, the software last."""
    software = yaml.safe_load(_file().read_text(encoding="utf-8"))
    works = [*software["references"], {**software, "year": str(software["date-released"])[:4]}]
    print("\n\n".join(map(bibtex, works)))


def bibtex(work: Mapping[str, Any]) -> str:
    """A work of the Citation File Format 1.2 as an entry of BibTeX, whose key is its first author's name and the year."""
    eprint = next((one["value"] for one in work.get("identifiers", ()) if one["value"].startswith(ARXIV)), "")
    fields = {
        "author": " and ".join(map(_name, work["authors"])),
        "title": f"{{{work['title']}}}",
        "year": work["year"],
        "eprint": eprint.removeprefix(ARXIV),
        "archiveprefix": ARXIV[:-1] if eprint else "",
        "url": work.get("url", ""),
        "version": work.get("version", ""),
        "license": work.get("license", ""),
    }
    kind = "software" if work["type"] == "software" else "misc" if eprint else work["type"]
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{_key(work['authors'])}{work['year']},", *lines, "}"])


def _name(author: Mapping[str, str]) -> str:
    """Family and given names; what is no person is kept whole."""
    return f"{author['family-names']}, {author['given-names']}" if "family-names" in author else f"{{{author['name']}}}"


def _key(authors: Sequence[Mapping[str, str]]) -> str:
    first = authors[0].get("family-names") or "".join(authors[0]["name"].removeprefix("The ").split()[:1])
    return "".join(letter for letter in first.lower() if letter.isalnum())


def _file() -> Path:
    """In a checkout beside the configs, where pip installed the package among its files."""
    places = [Path(bundle_root(), FILE)]
    with suppress(PackageNotFoundError):
        places += [Path(str(one.locate())) for one in files("score-fusion") or () if one.name == FILE]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise BadInput(f"{FILE}: is not there; install the package again, or see the project's front page")
    return found
