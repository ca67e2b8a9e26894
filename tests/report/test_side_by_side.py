# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from heads import SIDES, save

from scripts.errors import BadInput
from scripts.report import side_by_side as module
from scripts.report.side_by_side import side_by_side


@pytest.fixture
def evaluated(tmp_path, head):
    """A function that writes what evaluate.yaml leaves of a run with some cases, the result scaled by `factor`."""

    def evaluated(folder, factor, cases=("a", "b"), sides=SIDES, **system):
        sources = {}
        for case in cases:
            truth = save(head, tmp_path / "data" / f"{case}_t1.nii.gz")
            save((factor * head)[: sides[0]], tmp_path / folder / case / f"{case}_pred.nii.gz")
            sources[case] = {"image": [truth], "label": truth}
        system = {"conditions": ["t1"], "target": "t1", "block": [4, 4, 4], **system}
        content = {"system": system, "mean": {}, "sources": sources, "cases": {}, "failures": {}}
        (tmp_path / folder / "results.json").write_text(json.dumps(content))
        return str(tmp_path / folder)

    return evaluated


@pytest.fixture
def drawn(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "planes_figure", lambda volumes, path, title, **options: calls.append((volumes, title)))
    return calls


def test_results_of_a_case_that_all_have_stand_between_input_and_truth_then_their_errors(evaluated, head, drawn, tmp_path):
    runs = [evaluated("one", 0.9, name="tpdm"), evaluated("two", 0.8, cases=("b",))]
    side_by_side(runs, str(tmp_path / "out.png"))
    ((volumes, title),) = drawn
    assert list(volumes) == ["input", "tpdm", "two", "truth", "error of tpdm", "error of two"]
    assert title.startswith("b. ")
    scaled = head / head.max()
    for name, factor in (("tpdm", 0.9), ("two", 0.8)):
        np.testing.assert_allclose(volumes[f"error of {name}"], (factor - 1) * scaled, atol=1e-6)


def test_runs_of_one_name_are_told_apart_by_their_place(evaluated, drawn, tmp_path):
    side_by_side([evaluated("average/eval", 0.9), evaluated("fusion/eval", 0.8)], str(tmp_path / "out.png"))
    assert list(drawn[0][0])[1:3] == ["eval average/eval", "eval fusion/eval"]


def test_the_picture_is_written(evaluated, tmp_path):
    side_by_side([evaluated("one", 0.9), evaluated("two", 0.8)], str(tmp_path / "out.png"), case="a")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_that_a_run_lacks_and_other_grids_are_refused(evaluated, tmp_path):
    whole, part = evaluated("one", 0.9), evaluated("two", 0.8, cases=("b",))
    with pytest.raises(BadInput, match="two: has no result of case a"):
        side_by_side([whole, part], str(tmp_path / "out.png"), case="a")
    with pytest.raises(BadInput, match="has no result of a case that all runs have"):
        side_by_side([evaluated("three", 0.9, cases=("c",)), part], str(tmp_path / "out.png"))
    with pytest.raises(BadInput, match="a: the results lie on different grids"):
        side_by_side([whole, evaluated("four", 0.8, sides=(20, 28, 32))], str(tmp_path / "out.png"))
    assert not (tmp_path / "out.png").exists()


def test_a_picture_that_cannot_be_written_is_one_line(evaluated, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        side_by_side([evaluated("one", 0.9), evaluated("two", 0.8)], str(tmp_path / "file" / "out.png"))
