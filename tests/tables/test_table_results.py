# SPDX-License-Identifier: Apache-2.0
import pytest

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.measurement import BlockAverage, Task
from scripts.tables.results import load_results

TRANSLATION = {"conditions": ["t1ce"], "target": "flair", "block": [1, 1, 1]}


def names(*paths):
    return [result.name for result in load_results(paths)]


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


def test_a_record_that_holds_its_task_whole_stands_beside_those_of_0_6(write):
    task = Task(["t1"], "t1", BlockAverage((4, 4, 4)), "").content()
    none = dict.fromkeys(("conditions", "target", "block"))
    paths = [write("a", more={"task": task}, consistency=False, **none), write("b"), write("c", block=[1, 1, 4])]
    tasks = [result.task for result in load_results(paths)]
    assert tasks[0] == tasks[1] != tasks[2]
    assert names(paths[0]) == ["learned fusion, coronal + sagittal, 1 NFE, no consistency"]


def test_systems_of_one_name_get_what_differs(write):
    found = names(write("a", size="small"), write("b", size="compact", seed=1), write("c", **TRANSLATION))
    name = "learned fusion, coronal + sagittal, 1 NFE"
    assert found == [f"{name}, size small, seed 0", f"{name}, size compact, seed 1", name]


def test_equal_systems_get_their_folders_and_a_file_given_twice_is_one(write, tmp_path):
    write("runs/a")
    write("runs/b")
    found = names(str(tmp_path), str(tmp_path / "runs" / "a" / "results.json"))
    assert [name.rsplit(", ", 1)[1] for name in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
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
