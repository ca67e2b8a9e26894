# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from scripts.errors import BadInput
from scripts.measurement import BlockAverage, Task, ThickScans
from scripts.measurement.task import KINDS

PLANES = [[1, 1, 4], [1, 4, 1], [4, 1, 1]]
TASKS = [
    (["t1"], "t1", BlockAverage((4, 4, 4)), "super-resolution", "super-resolution 4x4x4 of t1"),
    (["t1"], "t1", BlockAverage((1, 1, 4)), "thick slice", "thick slice 1x1x4 of t1"),
    (["t1"], "t1", ThickScans(PLANES), "thick planes", "thick planes 1x1x4 + 1x4x1 + 4x1x1 of t1"),
    (["axial", "coronal", "sagittal"], "t1", ThickScans(PLANES), "thick planes", "thick planes 1x1x4 + 1x4x1 + 4x1x1 of t1"),
    (["t1ce"], "flair", None, "translation", "translation t1ce -> flair"),
    (["t1", "t2"], "flair", BlockAverage((1, 1, 1)), "translation", "translation t1 + t2 -> flair"),
    (["flair", "t1ce"], "flair", BlockAverage((4, 4, 4)), "both", "both flair 4x4x4 + t1ce -> flair"),
    ([], "", None, "unknown task", "unknown task"),
]


@pytest.mark.parametrize(("conditions", "target", "degradation", "kind", "title"), TASKS, ids=lambda value: str(value)[:40])
def test_a_task_is_of_a_kind_and_says_in_a_line_what_it_is(conditions, target, degradation, kind, title):
    task = Task(conditions, target, degradation)
    assert (task.kind, task.title) == (kind, title)
    assert kind in KINDS


@pytest.mark.parametrize(("conditions", "target", "degradation"), [row[:3] for row in TASKS], ids=lambda value: str(value)[:40])
def test_a_task_comes_back_from_json_as_it_was(conditions, target, degradation):
    task = Task(conditions, target, degradation)
    for content in (task.content(), {"task": task.content(), "system": {"conditions": ["another"]}}):
        back = Task.of(json.loads(json.dumps(content)))
        assert back == task
        assert back.content() == task.content()
        assert type(back.degradation) is type(task.degradation)


def test_how_a_measurement_is_used_comes_back_too_and_makes_no_other_task():
    free = Task(["t1"], "t1", ThickScans(PLANES, smooth=False, consistency=False))
    back = Task.of(free.content())
    assert (back.degradation.smooth, back.degradation.consistency) == (False, False)
    assert free == Task(["t1"], "t1", ThickScans(PLANES))
    assert free != Task(["t1"], "t1", ThickScans(PLANES[:2]))


def test_a_title_of_ones_own_is_kept():
    task = Task(["t1"], "t1", BlockAverage((2, 2, 2)), "babies")
    assert (task.title, Task.of(task.content()).title, task.kind) == ("babies", "babies", "super-resolution")
    assert task != Task(["t1"], "t1", BlockAverage((4, 4, 4)), "babies")
    assert task == Task(["t1"], "t1", BlockAverage((2, 2, 2)))


@pytest.mark.parametrize(
    ("system", "title"),
    [
        ({"conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "nfe": 1}, "super-resolution 4x4x4 of t1"),
        ({"conditions": ["t1ce"], "target": "flair", "block": [1, 1, 1]}, "translation t1ce -> flair"),
        ({"conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "scans": PLANES}, TASKS[2][4]),
        ({"predictions": "somewhere"}, "unknown task"),
    ],
    ids=str,
)
def test_records_of_0_6_told_the_task_in_the_system(system, title):
    assert Task.of({"system": system, "cases": {}}).title == title
    assert Task.of(system).title == title


def test_a_record_of_0_6_without_consistency_projected_nothing():
    system = {"conditions": ["t1"], "target": "t1", "block": [4, 4, 4]}
    assert Task.of({"system": {**system, "consistency": False}}).degradation.consistency is False
    assert Task.of({"system": system}).degradation.consistency is True


def test_impossible_blocks_of_a_record_are_refused():
    with pytest.raises(BadInput, match="three whole numbers"):
        Task.of({"conditions": ["t1"], "target": "t1", "blocks": [[4, 4, 0]]})
