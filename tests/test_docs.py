# SPDX-License-Identifier: Apache-2.0
"""The pages: narrow, in short paragraphs, with links that lead somewhere, and all in the index."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COLUMNS, WORDS = 100, 90
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(page: Path) -> list[str]:
    """Lines of a page; those of code, indented or fenced, are empty. A list's continuation is indented less than code."""
    lines, fenced = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        lines.append("" if fence or fenced or line.startswith("    ") else line)
    return lines


def paragraphs(page: Path) -> list[str]:
    """Prose between empty lines; items of lists are paragraphs of their own; no tables, headings or pictures."""
    text = "\n".join("" if line.startswith(("|", "#", "![")) else line for line in without_code(page))
    return [part for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text) if part.strip()]


def anchors(page: Path) -> set[str]:
    """Names that GitHub gives to the headings of a page."""
    headings = [line.lstrip("#").strip().lower() for line in without_code(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@each_page
def test_prose_is_at_most_100_columns_wide(page):
    whole = ("|", "![", "[^")  # rows of tables and their footnotes, which a command writes, and pictures
    breakable = [line for line in without_code(page) if not line.startswith(whole) and " " in LINK.sub("", line).strip()]
    assert [line for line in breakable if len(line) > COLUMNS] == []


@each_page
def test_no_paragraph_is_longer_than_90_words(page):
    assert [(len(part.split()), part[:60]) for part in paragraphs(page) if len(part.split()) > WORDS] == []


@each_page
def test_every_link_within_the_repository_leads_somewhere(page):
    for link in LINK.findall("\n".join(without_code(page))):
        if not link.startswith(("http://", "https://", "mailto:")):
            path, _, anchor = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{link}: no such file"
            assert not anchor or anchor in anchors(there), f"{link}: no such heading"


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    assert sorted(set((ROOT / "docs").rglob("*.md")) - linked - {index}) == []


def test_the_front_page_shows_a_picture_before_its_first_command():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    picture = next(number for number, line in enumerate(lines) if line.startswith("!["))
    command = next(number for number, line in enumerate(lines) if line.startswith(("    ", "```")))
    assert picture < command


def test_one_version_stands_everywhere():
    version = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == version
    released = re.findall(r"^## \[(\d[\d.]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == version


def test_the_comparison_has_23_rows_and_a_source_in_every_cell():
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    header, _, *rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 23
    sources = set(re.findall(r"^\[(\w+)\]: https://\S+$", text, re.MULTILINE))
    named = {name for row in rows for cell in row for name in re.findall(r"\]\[(\w+)\]", cell)}
    assert named == sources
    for title, *cells in rows:
        assert title.strip() and len(cells) == len(header) - 1
        assert [cell for cell in cells if not re.search(r"\]\(\S+\)|\]\[\w+\]", cell)] == [], title
