# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

import pytest
import yaml

from scripts import bundle_root
from scripts.__main__ import main
from scripts.citation import bibtex


def fields(entry):
    """Of an entry in BibTeX, with its kind and key."""
    kind, key = re.match(r"@(\w+)\{(\w+),\n", entry).groups()
    assert entry.count("{") == entry.count("}")
    return {"kind": kind, "key": key, **dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.MULTILINE))}


def test_method_and_software_are_cited_as_the_file_has_them(capsys):
    assert main(["cite"]) == 0
    method, software = map(fields, capsys.readouterr().out.split("\n\n"))
    known = yaml.safe_load(Path(bundle_root(), "CITATION.cff").read_text())
    paper = known["references"][0]
    assert (method["kind"], method["eprint"], method["year"]) == ("misc", "2501.07430", "2025")
    assert method["title"] == f"{{{paper['title']}}}"
    families = [author.split(", ")[0] for author in method["author"].split(" and ")]
    assert families == [author["family-names"] for author in paper["authors"]]
    assert (software["kind"], software["version"], software["title"]) == ("software", known["version"], f"{{{known['title']}}}")
    assert software["author"] == f"{{{known['authors'][0]['name']}}}" and software["year"] == known["date-released"][:4]
    assert method["key"] != software["key"]


@pytest.mark.parametrize("year", [1999, 2025])
def test_a_work_without_a_preprint_keeps_its_kind(year):
    work = {"type": "article", "title": "On X", "year": year, "authors": [{"family-names": "O'Neil", "given-names": "A. B."}]}
    entry = fields(bibtex(work))
    expected = {"kind": "article", "key": f"oneil{year}", "author": "O'Neil, A. B.", "title": "{On X}", "year": str(year)}
    assert entry == expected
