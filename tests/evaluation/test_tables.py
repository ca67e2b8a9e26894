# SPDX-License-Identifier: Apache-2.0
import csv
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from scipy.stats import rankdata

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.evaluation.significance import bootstrap_interval, holm, wilcoxon_p
from scripts.evaluation.tables import FORMATS, comparison, load_results, overview, tables

SYSTEM = {
    "conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "planes": ["coronal", "sagittal"], "fusion": True,
    "consistency": True, "samples": 1, "size": "compact", "seed": 0, "nfe": 1,
}  # fmt: skip
TRANSLATION = {"conditions": ["t1ce"], "target": "flair", "block": [1, 1, 1]}
BOTH = {"conditions": ["flair", "t1ce"], "target": "flair"}
THREE = ["axial", "coronal", "sagittal"]


@pytest.fixture
def write(tmp_path, rng):
    """A function that writes a results.json into a folder and gives the folder."""

    def write(folder, psnr=(30.0, 31.0, 33.0), *, more=None, metrics=None, **system):
        cases = {f"sub-{i}": {"psnr": value, "ssim": 0.9 + 0.001 * i, "seconds": 2.0} for i, value in enumerate(psnr)}
        for case, found in (metrics or {}).items():
            cases[case].update(found)
        (tmp_path / folder).mkdir(parents=True)
        content = {"system": {**SYSTEM, **system}, "n": len(cases), "cases": cases, "failures": {}, **(more or {})}
        (tmp_path / folder / "results.json").write_text(json.dumps(content))
        return str(tmp_path / folder)

    return write


def names(*paths):
    return [result.name for result in load_results(paths)]


def ours(*paths):
    """Rows of the table of means that are not the paper's."""
    return [row for row in overview(load_results(paths)).rows if "(paper" not in row.cells["system"].value]


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


# The numbers


def test_the_interval_cuts_two_and_a_half_percent_off_each_end_of_all_resamples(rng):
    values = rng.normal(30, 2, 6)
    low, high = bootstrap_interval(values)
    means = values[np.indices((6,) * 6).reshape(6, -1)].mean(axis=0)
    slack = 5 * math.sqrt(0.025 * 0.975 / 10_000)  # of a proportion among 10 000 draws
    assert (means < low - 1e-9).mean() - slack < 0.025 < (means <= low + 1e-9).mean() + slack
    assert (means > high + 1e-9).mean() - slack < 0.025 < (means >= high - 1e-9).mean() + slack


def test_the_interval_covers_the_true_mean_nineteen_times_in_twenty(rng):
    intervals = [bootstrap_interval(rng.normal(30, 2, 20)) for _ in range(200)]
    covered = np.mean([low <= 30 <= high for low, high in intervals])
    assert 0.85 < covered < 0.99  # 0.925 expected of percentiles at n = 20; 4 standard deviations of 200 trials


def test_the_same_cases_give_the_same_interval(rng):
    values = list(rng.normal(30, 2, 9))
    assert bootstrap_interval(values) == bootstrap_interval(values)


@pytest.mark.parametrize("n", [4, 6, 9])
def test_the_paired_test_agrees_with_all_ways_to_flip_the_signs(n, rng):
    differences = rng.normal(0.5, 1, n)
    ranks = rankdata(abs(differences))
    sums = np.array([ranks[np.array(flip)].sum() for flip in itertools.product([False, True], repeat=n)])
    seen = ranks[differences > 0].sum()
    assert wilcoxon_p(differences) == pytest.approx(min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean())))


def test_systems_that_never_differ_are_not_told_apart():
    assert wilcoxon_p(np.zeros(8)) == 1.0


def test_holm_agrees_with_p_adjust_of_r():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


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
    table = overview(load_results([write("a", block=[2, 2, 2])]))
    assert [column.key for column in table.columns] == ["system", "psnr", "ssim", "nfe", "seconds", "n"]


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ({}, "learned fusion, coronal + sagittal, 1 NFE"),
        ({"fusion": False, "nfe": 4}, "average, coronal + sagittal, 4 NFE"),
        ({"fusion": False, "planes": ["coronal"]}, "coronal alone, 1 NFE"),
        ({"consistency": False, "samples": 5}, "learned fusion, coronal + sagittal, 1 NFE, 5 samples, no consistency"),
        ({"consistency": False, **TRANSLATION}, "learned fusion, coronal + sagittal, 1 NFE"),
        ({"name": "trilinear"}, "trilinear"),
        ({"planes": None}, "folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_system_is_named_after_what_it_is(system, name, write):
    assert names(write("folder", **system)) == [name]


def test_systems_of_one_name_get_what_differs(write):
    found = names(write("a", size="small"), write("b", size="compact", seed=1), write("c", **TRANSLATION))
    name = "learned fusion, coronal + sagittal, 1 NFE"
    assert found == [f"{name}, size small, seed 0", f"{name}, size compact, seed 1", name]


def test_equal_systems_get_their_folders_and_a_file_given_twice_is_one(write, tmp_path):
    write("runs/a")
    write("runs/b")
    found = names(str(tmp_path), str(tmp_path / "runs" / "a" / "results.json"))
    assert [name.rsplit(", ", 1)[1] for name in found] == ["a", "b"]


def test_rows_are_grouped_by_task(write):
    paths = [
        write("t", **TRANSLATION),
        write("both", **BOTH),
        write("sr"),
        write("thick", block=[1, 1, 4]),
        write("sr2", nfe=2),
    ]
    assert [row.group for row in ours(*paths)] == [
        "super-resolution 4x4x4 of t1", "super-resolution 4x4x4 of t1", "thick slice 1x1x4 of t1",
        "translation t1ce -> flair", "both flair 4x4x4 + t1ce -> flair",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("system", "method", "psnr"),
    [
        ({"name": None}, "learned fusion on TPDM", 33.24),
        ({"fusion": False, **TRANSLATION}, "TPDM (average)", 25.35),
        ({"fusion": False, "planes": ["axial"]}, "Palette 2D", 29.26),
        ({"planes": THREE, **BOTH}, "learned fusion on TOSM", 36.51),
        ({"planes": THREE, "slab": 5}, "learned fusion on MADM", 33.31),
        ({"name": "U-Net 3D"}, "U-Net 3D", 31.23),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_papers_row_of_the_same_method_and_task_follows_ours(system, method, psnr, write):
    rows = overview(load_results([write("a", **system), write("b", **{**system, "nfe": 2})])).rows
    assert len(rows) == 3
    assert rows[-1].cells["system"].value == f"{method} (paper, BraTS 2021, n = 251)"
    assert rows[-1].cells["psnr"].value == psnr
    assert "other data" in rows[-1].cells["system"].notes[0]


@pytest.mark.parametrize(
    "system", [{"block": [1, 1, 4]}, {"block": [2, 2, 2]}, {"name": "cubic"}, {**TRANSLATION, "target": "t2"}], ids=str
)
def test_the_paper_has_no_row_for_another_task_or_method(system, write):
    assert len(overview(load_results([write("a", **system)])).rows) == 1


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


# Comparison


def test_every_two_systems_of_a_task_are_compared_over_the_cases_they_share(write, rng):
    first, second = rng.normal(30, 1, (2, 8))
    paths = [write("a", [*first, 5.0, None]), write("b", second, nfe=2), write("c", **TRANSLATION)]
    table = comparison(load_results(paths))
    assert [row.cells["metric"].value for row in table.rows] == ["PSNR (dB)", "SSIM"]
    cells = table.rows[0].cells
    assert cells["n"] == (8, (), ("2 of 10 cases left out: failed, undefined or not measured in one of the two",))
    assert cells["median_difference"].value == pytest.approx(np.median(first - second))
    assert cells["p"].value == pytest.approx(wilcoxon_p(first - second))
    assert cells["p_holm"].value >= cells["p"].value
    assert cells["p"].notes == ()


def test_fewer_than_six_shared_cases_are_said_to_be_too_few(write):
    cells = comparison(load_results([write("a", (1, 2, 3, 4, 5)), write("b", (2, 4, 6, 8, 10), nfe=2)])).rows[0].cells
    assert cells["p"].value == 2 / 2**5
    assert "cannot reach 5 %" in cells["p"].notes[0]


def test_systems_that_share_no_case_get_no_p(write):
    path = write("b", (1.0,), metrics={"sub-0": {"psnr": None, "ssim": None}}, nfe=2)
    cells = comparison(load_results([write("a"), path])).rows[0].cells
    assert [cells[key].value for key in ("n", "median_difference", "p", "p_holm")] == [0, None, None, None]


# Formats


def test_csv_gives_back_every_number_and_note(write):
    path = write("a", (30.125, 31.0, None, 33.0), metrics={"sub-0": {"mae": 0.5}}, name='with "quotes", and comma')
    [row] = parsed(FORMATS["csv"](overview(load_results([path]))))
    assert row["system"] == 'with "quotes", and comma'
    assert float(row["psnr"]) == np.mean([30.125, 31.0, 33.0])
    assert float(row["psnr_low"]) < float(row["psnr"]) < float(row["psnr_high"])
    assert float(row["mae"]) == 0.5
    assert row["notes"].startswith("PSNR (dB) is undefined")
    assert "MAE" not in FORMATS["markdown"](overview(load_results([path]))).upper()  # no room on a page


@pytest.mark.parametrize("build", [overview, comparison])
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
    text = FORMATS["markdown"](overview(load_results(paths)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "| a\\|b\\_c d |" in text
    marks = re.findall(r" \[\^(\d+)\]", text)
    assert sorted(set(marks)) == sorted(re.findall(r"^\[\^(\d+)\]: ", text, re.MULTILINE)) == ["1", "2", "3"]


# Command


def test_the_command_prints_and_writes(write, tmp_path, capsys):
    path = write("a")
    assert main(["tables", path]) == 0
    assert "31.33 (30.00 to 33.00)" in capsys.readouterr().out
    assert main(["tables", path, "--format", "csv", "--output", str(tmp_path / "new" / "table.csv")]) == 0
    assert capsys.readouterr().out == ""
    assert len(parsed((tmp_path / "new" / "table.csv").read_text())) == 2


def test_the_command_offers_the_formats_that_there_are(write, capsys):
    with pytest.raises(SystemExit):
        main(["tables", "x", "--format", "word"])
    usage = capsys.readouterr().err
    assert all(form in usage for form in FORMATS)
    with pytest.raises(BadInput, match="no format 'word'"):
        tables([write("a")], form="word")


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "not a file of results"),
        ('{"system": {}, "mean": {}}', "not a file of results"),
        ('{"system": {}, "cases": {"a": 1}}', "a case in it has no metrics"),
        ('{"system": {}, "cases": {}, "failures": {"a": "b"}}', "no case was measured, 1 failed"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_that_names_the_file(content, fact, tmp_path, capsys):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    assert main(["tables", str(path)]) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: {path}: ")
    assert fact in line
    assert line.count("\n") == 1


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"holds no results\.json"):
        load_results([str(tmp_path)])


def test_one_system_alone_is_not_compared(write):
    with pytest.raises(BadInput, match="no two of the 2 systems given share a task"):
        comparison(load_results([write("a"), write("b", **TRANSLATION)]))


def test_results_are_never_overwritten_by_their_table(write):
    path = write("a")
    with pytest.raises(BadInput, match="one of the results"):
        tables([path], output=f"{path}/results.json")
