# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from scripts.errors import BadInput
from scripts.tables.comparison import comparison
from scripts.tables.formats import FORMATS
from scripts.tables.results import load_results
from scripts.tables.significance import wilcoxon_p

TRANSLATION = {"conditions": ["t1ce"], "target": "flair", "block": [1, 1, 1]}


def test_every_two_systems_of_a_task_are_compared_over_the_cases_they_share(write, rng):
    first, second = rng.normal(30, 1, (2, 8))
    paths = [write("a", [*first, 5.0, None]), write("b", second, nfe=2), write("c", **TRANSLATION)]
    table = comparison(load_results(paths))
    assert [row.cells["metric"].value for row in table.rows[:2]] == ["PSNR (dB)", "SSIM"]
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


def test_one_system_alone_is_not_compared(write):
    with pytest.raises(BadInput, match="no two of the 2 systems given share a task"):
        comparison(load_results([write("a"), write("b", **TRANSLATION)]))


def test_a_system_without_another_of_its_task_is_not_dropped_in_silence(write):
    results = load_results([write("a"), write("b", nfe=2), write("c", **TRANSLATION)])
    assert results[-1].task.kind == "translation"
    for form in ("markdown", "csv"):
        lines = FORMATS[form](comparison(results)).splitlines()
        assert "not compared: of its task there is no other system here" in lines[-1]
        assert any(f"{results[-1].name} [^2]" in line for line in lines) or (form == "csv" and results[-1].name in lines[-1])


def test_what_people_call_a_task_makes_no_other(write):
    task = {"conditions": ["t1"], "target": "t1", "blocks": [[4, 4, 4]]}
    paths = [write(title, (30.0, 31.0, 32.0), more={"task": {**task, "title": title}}) for title in ("babies", "adults")]
    assert len(comparison(load_results(paths)).rows) == 2
