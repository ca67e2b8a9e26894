# SPDX-License-Identifier: Apache-2.0
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scripts.errors import BadInput
from scripts.evaluation import CaseEvaluator, Results, TolerantDataset
from scripts.evaluation.case_evaluator import one_line

BAD = "case bad: is 3x3x3 but 4x4x4; resample it"


def load(case):
    if case["case"] == "bad":
        raise BadInput(BAD)
    if case["case"] == "worse":
        raise RuntimeError("first line\nsecond line")
    return case


@pytest.fixture
def evaluate(tmp_path, rng):
    """A function (names) -> content of results.json, exit code; the result of a case is off by its number / 10."""

    def evaluate(*names):
        def case(index, name):
            return {"case": name, "image": torch.full((1,), index / 10), "label": torch.from_numpy(rng.random((1, 8, 9, 10)))}

        data = TolerantDataset([case(index, name) for index, name in enumerate(names, start=1)], load)
        evaluator = CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=torch.utils.data.DataLoader(data, batch_size=1),
            network=torch.nn.Identity(),
            inferer=lambda inputs, network, *args, **kwargs: inputs,
            postprocessing=lambda d: {**d, "pred": d["label"] + d["pred"]},
            val_handlers=[Results(str(tmp_path / "new" / "results.json"), {"size": "tiny"}, SimpleNamespace(nfe=7))],
        )
        code = 0
        try:
            evaluator.run()
        except SystemExit as ended:
            code = ended.code
        return json.loads((tmp_path / "new" / "results.json").read_text()), code

    return evaluate


def test_results_hold_every_case_and_the_mean_of_the_cases(evaluate, tmp_path):
    results, code = evaluate("a", "b", "c")
    assert code == 0
    assert results["system"] == {"size": "tiny", "nfe": 7}
    assert results["n"] == 3
    assert results["failures"] == {}
    assert list(results["cases"]) == ["a", "b", "c"]
    for index, metrics in enumerate(results["cases"].values(), start=1):
        assert metrics["psnr"] == pytest.approx(-20 * np.log10(index / 10), abs=1e-3)
        assert metrics["psnr_foreground"] == pytest.approx(metrics["psnr"], abs=1e-3)
        assert metrics["seconds"] >= 0
    for key, mean in results["mean"].items():
        assert mean == pytest.approx(np.mean([metrics[key] for metrics in results["cases"].values()]))
    assert results["mean"].keys() == {"psnr", "ssim", "psnr_foreground", "ssim_foreground", "seconds"}
    assert 0.1 < results["peak_memory_gb"] < 100
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


def test_a_failed_case_is_named_and_left_out_of_the_mean(evaluate):
    results, code = evaluate("a", "bad", "c", "worse")
    assert code == 2
    assert (results["n"], list(results["cases"])) == (2, ["a", "c"])
    assert results["failures"] == {"bad": BAD, "worse": "RuntimeError: first line"}
    assert results["mean"]["psnr"] == pytest.approx(-10 * np.log10(0.1 * 0.3), abs=1e-3)


def test_without_a_single_good_case_there_is_no_mean(evaluate):
    results, code = evaluate("bad")
    assert (code, results["n"], results["mean"], results["cases"]) == (1, 0, {}, {})
    assert results["failures"] == {"bad": BAD}


def test_errors_are_told_in_one_line():
    assert one_line(ValueError()) == "ValueError: "
    assert one_line(KeyError("a\nb")) == "KeyError: 'a\\nb'"
