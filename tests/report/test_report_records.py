# SPDX-License-Identifier: Apache-2.0
"""Whose facts pages tell: of the run that made a result, of evaluated predictions, and on a case's page of no other case."""

import json
import re

import pytest
from heads import save

from scripts.errors import BadInput
from scripts.measurement import BlockAverage, Task
from scripts.report import report
from scripts.report.side_by_side import side_by_side

METRICS = {"psnr": 27.5, "seconds": 3.25}
TASK = Task(["t1"], "t1", BlockAverage((4, 4, 4))).content()


def write(folder, name="run.json", **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"task": TASK, "system": {}, "failures": {}, **content}))


def pages(folder, **given):
    group = report(str(folder), **given)
    return group.read_text(), {page.parent.name: page.read_text() for page in group.parent.glob("*/report.html")}


def results(folder, voxels, cases="ab"):
    for case in cases:
        save(voxels, folder / case / f"{case}_pred.nii.gz")


# Runs that were killed


def test_of_a_run_that_was_killed_pages_say_what_its_ledger_says(tmp_path, head):
    """After an earlier run, of which c is left: a is done, b was begun anew."""
    results(tmp_path, head, "abc")
    write(tmp_path, system={"samples": 2, "nfe": 4}, cases={}, unfinished=True, sources={"a": {}, "b": {}})
    done = {"outcome": "done", "seconds": 2.5, "doubts": ["sides unknown"], "peak_memory_gb": 3.5}
    lines = [{"run": "begun"}, {"case": "c", "outcome": "done"}, {"run": "ended"}, {"run": "begun"}, {"case": "a", **done}]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"case": "b", "outc')
    group, cases = pages(tmp_path)
    assert set(cases) == {"a"} and group.count("is of an earlier run") == 2
    assert "1 of 2 cases are done" in group and "case a: sides unknown" in group
    for said in ("sides unknown", ">3.5<", ">4<"):
        assert said in cases["a"]


def test_a_run_that_was_killed_before_its_first_case_shows_no_result_of_another(tmp_path, head):
    results(tmp_path, head)
    write(tmp_path, cases={}, unfinished=True)
    group, cases = pages(tmp_path)
    assert not cases and group.count("is of an earlier run") == 2


def test_a_case_that_failed_since_is_named(tmp_path, head):
    results(tmp_path, head)
    write(tmp_path, cases={"a": {}}, unfinished=True)
    (tmp_path / "ledger.jsonl").write_text(json.dumps({"case": "b", "outcome": "failed", "error": "holds 7 bytes"}) + "\n")
    group, cases = pages(tmp_path)
    assert set(cases) == {"a"} and "case b: holds 7 bytes" in group


def test_without_a_record_no_task_is_made_up(tmp_path, head):
    results(tmp_path, head)
    group, cases = pages(tmp_path)
    assert "task unknown: no record says it; give --conditions" in group
    assert "super-resolution" not in group + cases["a"]
    assert "super-resolution 4x4x4 of t1" in pages(tmp_path, conditions=["t1"])[0]


# Predictions that were evaluated


@pytest.fixture
def evaluated(tmp_path, head):
    """What `evaluate --predictions` leaves of a, beside results of an earlier run in its own folder."""
    results(tmp_path / "theirs", 0.9 * head, "a")
    truth = save(head, tmp_path / "data" / "a_t1.nii.gz")
    sources = {"a": {"image": [truth], "label": truth}}
    told = {"system": {"predictions": str(tmp_path / "theirs")}, "mean": METRICS, "cases": {"a": METRICS}, "sources": sources}
    write(tmp_path / "out", "results.json", **told)
    return tmp_path


def test_predictions_that_were_evaluated_are_shown_where_they_lie(evaluated, head, monkeypatch):
    group, cases = pages(evaluated / "out")
    assert 'href="a/report.html"' in group and "<b>error</b>" in cases["a"]
    assert "Files:" not in cases["a"]  # none lie beside the page
    monkeypatch.chdir(evaluated)
    content = json.loads((evaluated / "out" / "results.json").read_text())
    (evaluated / "out" / "results.json").write_text(json.dumps(content | {"system": {"predictions": "theirs"}}))
    results(evaluated / "out", 0.5 * head, "a")  # of an earlier run: it was not measured
    assert re.findall("data-result=.([0-9a-f]{12})", pages(evaluated / "out")[1]["a"]) == re.findall(
        "data-result=.([0-9a-f]{12})", cases["a"]
    )
    side_by_side(["out", "out"], "both.png")
    assert (evaluated / "both.png").is_file()


def test_predictions_that_are_gone_are_named(evaluated):
    (evaluated / "theirs").rename(evaluated / "elsewhere")
    with pytest.raises(BadInput, match=r"out: is an evaluation of the results in .*theirs, .* call it from where evaluate was"):
        report(str(evaluated / "out"))


# Whom a page names


def test_the_page_of_a_case_names_no_other(tmp_path, head):
    cases = ["Anna", "Anna-2", "Ben", "Carl"]
    results(tmp_path, head, cases[:3])
    warnings = [
        "case Anna: her slices have gaps", "case Anna-2: has gaps", "worker 1 is gone; case Ben goes to another",
        "/data/Carl_t1.nii.gz: is left out", "case Carl: cannot be read", "the weights saw other scans <here>",
        "/data: left out 2 of 6 cases: HUBER (no flair), MEIER (no flair)",
        "/data: took the first of several runs in 1 cases: Dora",
    ]  # fmt: skip
    sources = {case: {"image": [f"/data/{case}_t1.nii.gz"]} for case in cases}
    write(tmp_path, cases={case: {} for case in cases[:3]}, failures={"Carl": "x"}, sources=sources, warnings=warnings)
    group, shown = pages(tmp_path)
    assert all(f"<li>{line}</li>".replace("<here>", "&lt;here&gt;") in group for line in warnings)

    def warned(page):
        row = re.search(r'<th scope="row">warnings</th><td><ul>(.*?)</ul>', page).group(1)
        return re.findall("<li>(.*?)</li>", row)

    more = '<a href="../report.html">{} warnings of the run</a>'.format
    own = {"Anna": [warnings[0], more(7)], "Anna-2": [warnings[1], more(7)], "Ben": [more(8)]}
    assert {case: warned(page) for case, page in shown.items()} == own
    words = re.sub("[A-Za-z0-9+/=]{200,}", "", "".join(shown.values()))  # pictures in base64 may hold any four letters
    assert "Anna" in words and not re.search("Carl|HUBER|MEIER|Dora", words)


# Doubts of many


def test_alike_doubts_of_many_cases_are_one_and_rare_ones_come_first(tmp_path, head):
    cases = [f"sub-{number:03}" for number in range(200)]
    results(tmp_path, head, cases[:1])
    told = {case: {"doubts": ["no diagnosis", f"{case}_t1.nii.gz: sides unknown"]} for case in cases}
    told["sub-007"]["doubts"].append("its background is 12")
    sources = {case: {"image": [f"/data/{case}_t1.nii.gz"]} for case in cases}
    write(tmp_path, cases=told, sources=sources)
    notes = re.search(r"<h2>Doubts</h2><ul>(.*?)</ul></section>", pages(tmp_path, max_cases=1)[0]).group(1)
    lines = [re.sub("<details>.*</details>", "", line) for line in re.findall("<li>(.*?)</li>", notes)]
    all_of = "all 200 cases: "
    assert lines == ["case sub-007: its background is 12", f"{all_of}no diagnosis", f"{all_of}…: sides unknown"]
    assert notes.count("sub-199") == 2  # who, behind a click


def test_many_different_doubts_do_not_push_the_table_away(tmp_path, head):
    cases = {f"case{number}": {"doubts": [f"its background is {'x' * number}"]} for number in range(1, 51)}
    results(tmp_path, head, ["case1"])
    write(tmp_path, cases=cases)
    group = pages(tmp_path)[0]
    assert "<summary>30 more</summary>" in group and group.count("its background is") == 50
