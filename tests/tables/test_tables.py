# SPDX-License-Identifier: Apache-2.0
import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.tables.comparison import comparison
from scripts.tables.formats import FORMATS
from scripts.tables.published import PAPER
from scripts.tables.results import load_results
from scripts.tables.significance import bootstrap_interval
from scripts.tables.tables import means, tables

TRANSLATION = {"conditions": ["t1ce"], "target": "flair", "block": [1, 1, 1]}
BOTH = {"conditions": ["flair", "t1ce"], "target": "flair"}


def ours(*paths):
    """Rows of the overview that are not the paper's."""
    return [row for row in means(load_results(paths)).rows if "(paper" not in row.cells["system"].value]


def values(row, table):
    """What stands in the columns of a table, but for the name."""
    return [row.cells[column.key].value for column in table.columns[1:]]


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


# Rows


def test_a_row_holds_the_mean_of_its_cases_and_what_was_measured_of_all_together(write):
    more = {
        "mmd": {"n": 3, "value": 50.0, "floor": 30.0, "bias": 20.0},
        "kid": {"n": 3, "value": 0.02, "standard_error": 0.004, "features": "resnet"},
    }
    [row] = ours(write("a", (30.0, 31.0, 35.0), more=more))
    assert row.cells["psnr"].value == pytest.approx(32)
    assert row.cells["psnr"].spread[0] < 32 < row.cells["psnr"].spread[1]
    assert [row.cells[key].value for key in ("nfe", "seconds", "n", "mmd", "mmd_bias")] == [1, 2.0, 3, 50.0, 20.0]
    assert row.cells["kid"] == (0.02, (0.004,), ("KID from features of resnet",))
    assert row.cells["fid"].value is None


def test_a_column_that_nothing_fills_is_left_out(write):
    table = means(load_results([write("a", block=[2, 2, 2])]))
    assert [column.key for column in table.columns] == ["system", "psnr", "ssim", "nfe", "seconds", "n"]


def test_rows_are_grouped_by_task(write):
    paths = [
        write("t", **TRANSLATION),
        write("both", **BOTH),
        write("sr"),
        write("planes", scans=[[1, 1, 4], [1, 4, 1], [4, 1, 1]]),
        write("thick", block=[1, 1, 4], scans=[[1, 1, 4]]),
        write("sr2", nfe=2),
    ]
    assert [row.group for row in ours(*paths)] == [
        "super-resolution 4x4x4 of t1", "super-resolution 4x4x4 of t1", "thick slice 1x1x4 of t1",
        "thick planes 1x1x4 + 1x4x1 + 4x1x1 of t1",
        "translation t1ce -> flair", "both flair 4x4x4 + t1ce -> flair",
    ]  # fmt: skip


# The paper's tables


@pytest.fixture
def measured(write, rng):
    """A function that writes random results of a system with everything measured, and gives its folder, cases and n = 4."""

    def measured(folder, **system):
        keys = ("psnr", "ssim", "mace", "psnr_std", "ssim_std", "seconds")
        cases = {f"sub-{i}": dict(zip(keys, rng.uniform(0.1, 1, 6).tolist(), strict=True)) for i in range(4)}
        more = {"mmd": {"n": 4, "value": 70.0, "bias": 5.0}, "fid": {"n": 4, "value": 9.0}}
        path = write(folder, [0.0] * 4, metrics=cases, more=more, **system)
        return path, {key: [case[key] for case in cases.values()] for key in keys}

    return measured


@pytest.mark.parametrize(("table", "columns", "paper"), [
    (1, "psnr ssim mmd fid nfe seconds n", [33.24, 0.944, 13.77, 8.31, None, 140.4, 251]),
    (3, "psnr ssim mmd nfe n", None),
    (4, "small consistency features psnr ssim mmd nfe n", None),
    (5, "psnr psnr_std ssim ssim_std mace nfe n", [33.24, 0.0298, 0.944, 0.000261, 44.63e-4, None, 251]),
    (6, "psnr ssim mmd fid nfe seconds n", [29.62, 0.914, 67.96, 22.12, None, None, None]),
    (8, "training_days seconds nfe n", [32, 140.4, None, None]),
])  # fmt: skip
def test_a_table_of_the_paper_has_its_columns_and_the_papers_row(table, columns, paper, measured):
    path, cases = measured("a", name="ours_tpdm", features=True)
    made = means(load_results([path]), table)
    assert [column.key for column in made.page().columns] == ["system", *columns.split()]
    known = {"nfe": 1, "n": 4, "mmd": 70.0, "fid": 9.0, "training_days": None}
    known |= {"small": "no", "consistency": "yes", "features": "yes"}
    assert values(made.rows[0], made.page()) == [
        known[key] if key in known else pytest.approx(np.mean(cases[key])) for key in columns.split()
    ]
    assert [values(row, made.page()) for row in made.rows[1:]] == ([pytest.approx(paper)] if paper else [])


def test_every_mean_of_cases_has_its_interval(measured):
    path, cases = measured("a")
    cells = means(load_results([path]), 5).rows[0].cells
    for key in ("psnr", "psnr_std", "ssim", "ssim_std", "mace"):
        assert cells[key].spread == bootstrap_interval(cases[key])


def test_a_page_counts_uncertainty_in_the_papers_unit_and_csv_as_it_is(write):
    path = write("a", metrics={f"sub-{i}": {"mace": value} for i, value in enumerate((0.003, 0.004, 0.005))})
    made = means(load_results([path]), 5)
    assert "MACE (1e-4)" in FORMATS["markdown"](made)
    assert "| 40.00 (30.00 to 50.00) |" in FORMATS["markdown"](made)
    assert "| 44.63 |" in FORMATS["markdown"](made)
    ours, paper = parsed(FORMATS["csv"](made))
    assert float(ours["mace"]) == pytest.approx(0.004)
    assert paper["mace"] == "0.004463"


@pytest.mark.parametrize(("trained", "told"), [({"volumes": True}, "yes"), ({"volumes": False}, "no"), ({}, None)], ids=str)
def test_ablations_are_told_by_their_own_record_and_never_by_the_papers(trained, told, write):
    system = {"name": "ablation_small", "size": "compact_small", "features": False, **BOTH, "conditions": ["flair"], **trained}
    switches = ("small", "consistency", "volumes", "features")
    ours, paper = means(load_results([write("a", **system)]), 4).rows
    assert [ours.cells[key].value for key in switches] == ["yes", "yes", told, "no"]
    assert [paper.cells[key].value for key in switches] == ["yes", "yes", "yes", "no"]
    assert paper.cells["psnr"].value == 32.8


def test_switches_are_empty_where_there_is_nothing_to_switch(write):
    path = write("a", fusion=False, features=True, **TRANSLATION)
    cells = means(load_results([path]), 4).rows[0].cells
    assert [cells[key].value for key in ("small", "consistency", "volumes", "features")] == [None] * 4


def test_planes_of_one_condition_each_are_compared_to_those_of_table_3(write):
    paths = [write(name, name=name, **BOTH) for name in ("tpdm_modalities", "ours_modalities_small", "ours_modalities", "tpdm")]
    rows = means(load_results(paths), 3).rows[1::2]
    told = [[row.cells[key].value for key in ("psnr", "mmd", "training_days")] for row in rows]
    assert told == [[32.43, 25.05, 0], [35.34, 8.64, 4], [35.6, 8.82, 16], [35.12, 14.5, 8]]


def test_a_training_time_is_shown_when_the_result_tells_one(write):
    made = means(load_results([write("a", training_days=1.5)]), 8)
    assert [row.cells["training_days"].value for row in made.rows] == [1.5, 32]


@pytest.mark.parametrize("table", [1, 3, 4, 5, 6, 8])
def test_all_rows_of_the_paper_are_shown_once_when_asked_for(table, write):
    results = load_results([write("a", name="tpdm"), write("b", **BOTH)])
    shown = [row for row in means(results, table, published=True).rows if "(paper" in row.cells["system"].value]
    assert len(shown) == len(PAPER[table].rows)
    beside = {row.group for row in means(results, table).rows}
    groups = [row.group for row in shown]
    assert all(group in beside or group.endswith("published only") for group in groups)
    assert sum(a != b for a, b in pairwise(groups)) == len(set(groups)) - 1  # no group twice


def test_uncertainty_stands_in_the_overview_only_when_it_was_measured(measured, write):
    assert {"mace", "psnr_std", "ssim_std"} <= {column.key for column in means(load_results([measured("a")[0]])).page().columns}
    columns = means(load_results([write("b")])).columns
    assert not {"mace", "psnr_std", "ssim_std"} & {column.key for column in columns}


def test_the_published_fid_is_said_to_compare_with_no_other(write):
    ours, paper = means(load_results([write("a")]), 1).rows
    assert "compare with no others" in paper.cells["fid"].notes[0]
    assert ours.cells["fid"].notes == ()


def test_what_did_not_work_is_said_not_to_have_worked(write):
    _, paper = means(load_results([write("a", name="palette_3d", **TRANSLATION)]), 1).rows
    assert "published as not working" in paper.cells["system"].notes
    assert paper.cells["psnr"].value is None


# Footnotes


def test_a_failed_case_is_told_with_its_reason(write):
    failures = {"sub-8": "case sub-8: t1 is empty", "sub-9": "memory ran out"}
    [row] = ours(write("a", more={"failures": failures}))
    assert row.cells["n"].value == 3
    told = "2 of 5 cases failed, left out of every mean: case sub-8: t1 is empty; sub-9: memory ran out"
    assert row.cells["n"].notes == (told,)


def test_an_undefined_metric_is_left_out_of_the_mean_and_told(write):
    [row] = ours(write("a", (30.0, None, 31.0, 35.0, float("inf"))))
    assert row.cells["psnr"].value == pytest.approx(32)
    assert row.cells["psnr"].notes == ("PSNR (dB) is undefined and left out of the mean in 2 of 5 cases: sub-1; sub-4",)
    assert row.cells["ssim"].notes == ()


def test_a_metric_that_is_never_defined_is_empty_and_told(write):
    [row] = ours(write("a", (None, None, None)))
    assert row.cells["psnr"].value is None
    assert "3 of 3 cases" in row.cells["psnr"].notes[0]


def test_two_cases_get_no_interval_and_a_note(write):
    [row] = ours(write("a", (30.0, 32.0)))
    assert row.cells["psnr"] == (31.0, (), ("no interval from fewer than 3 cases",))


def test_a_number_of_other_cases_than_the_row_is_told(write):
    [row] = ours(write("a", more={"mmd": {"n": 1, "value": 9.0, "bias": None}}))
    assert row.cells["mmd"].notes == ("MMD is from n = 1",)
    assert row.cells["mmd_bias"].notes == ("MMD bias is from n = 1", "MMD bias is undefined for n = 1")


# Formats


def test_csv_gives_back_every_number_and_note(write):
    path = write("a", (30.125, 31.0, None, 33.0), metrics={"sub-0": {"mae": 0.5}}, name='with "quotes", and comma')
    [row] = parsed(FORMATS["csv"](means(load_results([path]))))
    assert row["system"] == 'with "quotes", and comma'
    assert float(row["psnr"]) == np.mean([30.125, 31.0, 33.0])
    assert float(row["psnr_low"]) < float(row["psnr"]) < float(row["psnr_high"])
    assert float(row["mae"]) == 0.5
    assert row["notes"].startswith("PSNR (dB) is undefined")
    assert "MAE" not in FORMATS["markdown"](means(load_results([path]))).upper()  # no room on a page


@pytest.mark.parametrize("build", [means, comparison])
def test_latex_has_equal_columns_in_every_row(build, write):
    text = FORMATS["latex"](
        build(load_results([write("a", name="50% & a_b #1 {x} \\ ^ ~ <$>"), write("b"), write("c", nfe=2)]))
    )
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    spans = [re.match(r"\\multicolumn\{(\d+)\}", row) for row in rows]
    assert {
        int(span.group(1)) if span else len(re.findall(r"(?<!\\)&", row)) + 1 for row, span in zip(rows, spans, strict=True)
    } == {columns}
    assert r"50\% \& a\_b \#1 \{x\} \textbackslash{} \textasciicircum{} \textasciitilde{} \textless{}\$\textgreater{}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text


def test_markdown_has_equal_columns_and_explains_every_mark_once(write):
    paths = [write("a", (30.0, 32.0), name="a|b_c\nd"), write("b", (30.0, 32.0), more={"failures": {"x": "lost"}})]
    text = FORMATS["markdown"](means(load_results(paths)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "| a\\|b\\_c d |" in text
    marks = re.findall(r" \[\^(\d+)\]", text)
    assert sorted(set(marks)) == sorted(re.findall(r"^\[\^(\d+)\]: ", text, re.MULTILINE)) == ["1", "2", "3", "4"]


# Command


def test_the_command_prints_and_writes(write, tmp_path, capsys):
    path = write("a")
    assert main(["tables", path]) == 0
    assert "31.33 (30.00 to 33.00)" in capsys.readouterr().out
    assert main(["tables", path, "--format", "csv", "--output", str(tmp_path / "new" / "table.csv")]) == 0
    assert capsys.readouterr().out == ""
    assert len(parsed((tmp_path / "new" / "table.csv").read_text())) == 2


def test_the_command_makes_the_papers_tables(write, capsys):
    path = write("a")
    assert main(["tables", path, "--table", "6"]) == 0
    assert "Ours-TPDM (paper, HCP)" in (said := capsys.readouterr().out)
    assert "| TPDM (paper, HCP)" not in said
    assert main(["tables", path, "--table", "6", "--published"]) == 0
    assert "| TPDM (paper, HCP)" in capsys.readouterr().out


@pytest.mark.parametrize(("asked", "fact"), [
    (["--table", "7"], "no table 7; choose from 1, 2, 3, 4, 5, 6, 8"),
    (["--table", "1", "--compare"], "--compare makes a table of its own"),
])  # fmt: skip
def test_a_table_that_there_is_not_is_refused(asked, fact, write, capsys):
    assert main(["tables", write("a"), *asked]) == 1
    assert fact in capsys.readouterr().err


def test_the_command_offers_the_formats_that_there_are(write, capsys):
    with pytest.raises(SystemExit):
        main(["tables", "x", "--format", "word"])
    usage = capsys.readouterr().err
    assert all(form in usage for form in FORMATS)
    with pytest.raises(BadInput, match="no format 'word'"):
        tables([write("a")], form="word")


def test_results_are_never_overwritten_by_their_table(write):
    path = write("a")
    with pytest.raises(BadInput, match="one of the results"):
        tables([path], output=f"{path}/results.json")


# In a page


def test_a_table_takes_the_place_of_the_one_below_its_comment(write, tmp_path):
    page = tmp_path / "page.md"
    before, after = "# Page\n\n| a | b |\n|---|---|\n\n<!-- ours -->\n\n", "\n\nWords.\n\n<!-- other -->\n\n| c |\n| - |\n"
    page.write_text(f"{before}| old |\n| --- |\n| 1[^1] |\n\n[^1]: A note.{after}")
    failed = write("a", (30.0, None, 35.0))
    for _ in range(2):  # again changes nothing
        main(["tables", str(failed), "--output", str(page), "--place", "ours"])
        text = page.read_text()
        assert text.startswith(f"{before}| system | PSNR (dB) |") and text.endswith(after), text
        assert "32.50" in text and "[^ours-1]: " in text and "old" not in text and "A note" not in text


@pytest.mark.parametrize("text", ["", "<!-- ours -->\n\n<!-- ours -->\n"])
def test_a_place_that_is_missing_or_twice_there_leaves_the_page_as_it_was(text, write, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(BadInput, match=rf"page\.md: has {text.count('ours')} lines <!-- ours -->; write one"):
        tables([str(write("a"))], output=str(page), place="ours")
    assert page.read_text() == text


@pytest.mark.parametrize("more", [{}, {"output": "page.tex", "form": "latex"}])
def test_a_place_is_one_in_a_page_of_markdown(more, write):
    with pytest.raises(BadInput, match="--place ours: is a comment in a page of Markdown"):
        tables([str(write("a"))], place="ours", **more)


@pytest.mark.parametrize("command", ["--compare", "gate"])
def test_cases_that_are_other_studies_elsewhere_are_not_paired(write, command, capsys):
    """Numbers of studies are given anew in every folder."""
    folders = [write("a", (30.0, 31.0, 33.0, 34.0)), write("b", (31.0, 33.0, 34.0, 35.0))]
    for folder, first in zip(folders, (1, 0), strict=True):
        entries = {f"sub-{i}": {"study_uid": f"1.2.{i + first}"} for i in range(4)}
        Path(folder, "identifiers.json").write_text(json.dumps(entries))
    assert main(["gate", *folders] if command == "gate" else ["tables", *folders, command]) == 1
    assert "is another study in" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["--compare", "gate"])
def test_cases_of_one_name_with_other_truths_are_not_paired(write, command, capsys):
    """Two data sets have a sub-01 each."""
    folders = [write("a", (30.0, 31.0, 33.0, 34.0)), write("b", (31.0, 33.0, 34.0, 35.0))]
    words = ["gate", *folders] if command == "gate" else ["tables", *folders, command]
    for folder, last in zip(folders, ("x", "y"), strict=True):
        file = Path(folder, "results.json")
        content = json.loads(file.read_text())
        main(words)
        assert "truth" not in capsys.readouterr().err  # older files do not say
        file.write_text(json.dumps({**content, "truths": {"sub-0": "x", "sub-3": last}}))
    assert main(words) == 1
    assert "case sub-3 has another truth than in" in capsys.readouterr().err
