# SPDX-License-Identifier: Apache-2.0
"""One table, written as Markdown, LaTeX or CSV: cells carry their own footnotes, a format numbers and escapes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import NamedTuple

MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`<[]~#"})
LATEX = str.maketrans(
    {**{character: f"\\{character}" for character in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$"}
)  # fmt: skip


class Column(NamedTuple):
    """A column: its key, heading, number format ("" for text), what a value's spread consists of, whether a page lacks it.

    scale: a page shows a value times this, 100 for percent; CSV has it as it is.
    """

    key: str
    title: str
    form: str = ""
    spread: tuple[str, ...] = ()
    csv_only: bool = False
    scale: float = 1


class Cell(NamedTuple):
    """A value, (low, high) or (standard error,) around it, and the footnotes it needs."""

    value: float | str | None = None
    spread: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


class Row(NamedTuple):
    """Cells by the key of their column; rows of one group follow each other."""

    group: str
    cells: Mapping[str, Cell]


class Table(NamedTuple):
    """What all formats are written from."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    def page(self) -> Table:
        """Without the columns that a page has no room for."""
        return self._replace(columns=[column for column in self.columns if not column.csv_only])


def markdown(table: Table) -> str:
    """Caption, table and footnotes of GitHub's Markdown."""
    table = table.page()
    marks = _marks(table)
    lines = [[_in_markdown(column.title) for column in table.columns], ["---"] * len(table.columns)]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        lines.append([f"**{_in_markdown(group)}**"] + [""] * (len(table.columns) - 1))
        for row in rows:
            cells = [(_in_markdown(text), notes) for text, notes in _texts(table, row)]
            lines.append([" ".join([text, *(f"[^{marks[note]}]" for note in notes)]).strip() for text, notes in cells])
    footnotes = [f"[^{mark}]: {_in_markdown(note)}" for note, mark in marks.items()]
    return "\n\n".join([_in_markdown(table.caption), "\n".join(f"| {' | '.join(line)} |" for line in lines), *footnotes])


def latex(table: Table) -> str:
    """A `table` for a document that uses the package booktabs."""
    table = table.page()
    marks, width = _marks(table), len(table.columns)
    lines = [" & ".join(_in_latex(column.title) for column in table.columns) + r" \\"]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_in_latex(group)}}}}} \\"]
        for row in rows:
            cells = [(_in_latex(text), ",".join(str(marks[note]) for note in notes)) for text, notes in _texts(table, row)]
            lines.append(" & ".join(text + (rf"\textsuperscript{{{mark}}}" if mark else "") for text, mark in cells) + r" \\")
    align = "".join("r" if column.form else "l" for column in table.columns)
    caption = rf"\caption{{{_in_latex(table.caption)}}}"
    begin = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    footnotes = [rf"\par\footnotesize\textsuperscript{{{mark}}} {_in_latex(note)}" for note, mark in marks.items()]
    return "\n".join([*begin, *lines, r"\bottomrule", r"\end{tabular}", *footnotes, r"\end{table}"])


def comma_separated(table: Table) -> str:
    """One line a row, numbers in full, with its task first and its footnotes in words last."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    heads = [[column.key, *(f"{column.key}_{part}" for part in column.spread)] for column in table.columns]
    writer.writerow(["task", *chain(*heads), "notes"])
    for row in table.rows:
        cells = [row.cells.get(column.key, Cell()) for column in table.columns]
        padded = zip(cells, heads, strict=True)
        values = [([cell.value, *cell.spread] + [None] * len(head))[: len(head)] for cell, head in padded]
        notes = dict.fromkeys(note for cell in cells for note in cell.notes)
        writer.writerow([row.group, *chain(*values), "; ".join(notes)])
    return stream.getvalue().rstrip("\n")


def _marks(table: Table) -> dict[str, int]:
    """Footnotes in the order in which they are read -> their number; one that serves twice has one number."""
    cells = (row.cells.get(column.key, Cell()) for row in table.rows for column in table.columns)
    return {note: mark for mark, note in enumerate(dict.fromkeys(note for cell in cells for note in cell.notes), start=1)}


def _texts(table: Table, row: Row) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What stands in each column, not yet escaped, and its footnotes."""
    for column in table.columns:
        cell = row.cells.get(column.key, Cell())
        yield _text(cell, column), cell.notes


def _text(cell: Cell, column: Column) -> str:
    if cell.value is None or isinstance(cell.value, str):
        return cell.value or ""
    value, *spread = [format(number * column.scale, column.form) for number in (cell.value, *cell.spread)]
    if not spread:
        return value
    return f"{value} ({spread[0]} to {spread[1]})" if len(spread) == 2 else f"{value} ± {spread[0]}"


def _in_markdown(text: str) -> str:
    return " ".join(text.split()).translate(MARKDOWN)


def _in_latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX).replace(r"-\textgreater{}", r"$\to$")


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}
