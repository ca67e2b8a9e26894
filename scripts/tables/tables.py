# SPDX-License-Identifier: Apache-2.0
"""Tables of results: one row a system with bootstrap intervals, as one of the paper's tables, the paper's row beside it."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInput
from ..files import write_text
from .cells import cells, rows_beside
from .columns import INTERVAL, MAIN, MMD, NFE, SECONDS, VIEWS, N, View, metric_column
from .comparison import comparison
from .downstream import downstream_rows, load_downstream
from .formats import FORMATS, Cell, Column, Row, Table
from .published import ABLATIONS, MODALITIES, PAPER
from .results import Result, load_results, number
from .significance import RESAMPLES

# Beside an overview stand the rows of table 1, and of tables 3 and 4 the methods that table 1 lacks.
OVERVIEW = PAPER[1]._replace(rows=(*ABLATIONS, *PAPER[1].rows, *MODALITIES[:3]))


def tables(
    results: Sequence[str], *, form: str = "markdown", output: str | None = None, compare: bool = False,
    table: int | None = None, published: bool = False, place: str | None = None,
) -> None:  # fmt: skip
    """Print a table of systems, or write it to a file.

    results: results.json files (for table 2 downstream.json), or folders that hold them; form: "markdown", "csv" or "latex";
    compare: paired tests between the systems of a task instead of their means; table: the number of one of the paper's;
    published: also its rows without one of ours; place: in a file of Markdown that is there, take the place of the table below
    the comment of this text. Raises BadInput for what is missing, unreadable, empty or unknown.
    """
    if form not in FORMATS:
        raise BadInput(f"no format '{form}'; choose from {', '.join(FORMATS)}")
    if table not in (None, *PAPER):
        raise BadInput(f"no table {table}; choose from {', '.join(map(str, PAPER))}")
    if compare and (table or published):
        raise BadInput("--compare makes a table of its own; leave out --table and --published")
    if place and (output is None or form != "markdown"):
        raise BadInput(f"--place {place}: is a comment in a page of Markdown, which --output names")
    loaded = load_downstream(results) if table == 2 else load_results(results)
    made = comparison(loaded) if compare else means(loaded, table, published=published)
    text = FORMATS[form](made._replace(caption="") if place else made)
    if output is None:
        print(text)
        return
    if Path(output).expanduser().resolve() in [result.path for result in loaded]:
        raise BadInput(f"{output}: this is one of the results; give --output another name")
    write_text(output, (in_page(output, place, text) if place else text) + "\n", "give --output another name")


def in_page(page: str, place: str, table: str) -> str:
    """The text of a page of Markdown with a table, and footnotes of its own, in place of those below `<!-- place -->`."""
    file, mark = Path(page).expanduser(), f"<!-- {place} -->"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    if lines.count(mark) != 1:
        raise BadInput(f"{page}: has {lines.count(mark)} lines {mark}; write one where the table belongs")
    begin = end = lines.index(mark) + 1
    while end < len(lines) and (not lines[end] or lines[end].startswith(("|", "[^"))):
        end += 1
    own = re.sub(r"\[\^(\d+)\]", rf"[^{re.sub('[^a-z0-9]+', '-', place.lower())}-\1]", table.strip())
    return "\n".join([*lines[:begin], "", own, *([""] if end < len(lines) else []), *lines[end:]])


def means(results: Sequence[Result], table: int | None = None, *, published: bool = False) -> Table:
    """A row for every result, the paper's of the same method and task below; columns that no row fills are left out.

    results: for table 2 those of `load_downstream`; table: one of the paper's, None for an overview; published: also the
    paper's rows without one of ours.
    """
    if table == 2:
        return _table("Dice and recovery of tumours", *downstream_rows(results, published=published))
    columns, title = VIEWS[table] if table else View((*MAIN, *_further_metrics(results), NFE, SECONDS, N), "")
    paper = PAPER[table] if table else OVERVIEW
    return _table(title, columns, list(rows_beside(results, columns, paper, rest=published)))


def rows_alone(results: Sequence[Result], view: View) -> Table:
    """A row for every result, and none of the paper's."""
    rows = [Row(result.task.title, cells(result, view.columns)) for result in results]
    return _table(view.title, view.columns, rows)


def _further_metrics(results: Sequence[Result]) -> list[Column]:
    """Whatever else was measured in cases; too much for a page, so in CSV only."""
    found = (item for result in results for case in result.cases.values() for item in case.items())
    keys = dict.fromkeys(key for key, value in found if value is None or number(value) is not None)
    known = {column.key for column in (*MAIN, SECONDS)}
    return [metric_column(key)._replace(csv_only=True) for key in keys if key not in known]


def _table(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    filled = {key for row in rows for key, cell in row.cells.items() if cell != Cell()}
    shown = [column for column in columns if column.key in filled]
    interval = f" (95 % bootstrap interval, {RESAMPLES} draws)" if any(column.spread == INTERVAL for column in shown) else ""
    told = [title, f"Mean over cases{interval}", "MMD falls with 1/n, its bias does not" if MMD in shown else ""]
    return Table(" ".join(f"{sentence}." for sentence in told if sentence), shown, rows)
