# SPDX-License-Identifier: Apache-2.0
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor

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

    def evaluate(*names, error=lambda index: torch.full((1, 1, 1, 1), index / 10), affine=lambda index: torch.eye(4), runs=1):
        def case(index, name):
            label = MetaTensor(torch.from_numpy(rng.random((1, 8, 9, 10))), affine=affine(index))
            return {"case": name, "image": error(index), "label": label}

        data = TolerantDataset([case(index, name) for index, name in enumerate(names, start=1)], load)
        evaluator = CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(data, batch_size=1),
            network=torch.nn.Identity(),
            inferer=lambda inputs, network, *args, **kwargs: inputs,
            postprocessing=lambda d: {**d, "pred": d["label"] + d["pred"]},
            val_handlers=[Results(str(tmp_path / "new" / "results.json"), {"size": "tiny"}, SimpleNamespace(nfe=7))],
        )
        code = 0
        try:
            for _ in range(runs):
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


def test_the_mmd_of_all_cases_stands_beside_the_means(evaluate):
    results, _ = evaluate("a", "b", "c")
    bias = 720 * (0.1 * 0.2 + 0.1 * 0.3 + 0.2 * 0.3) / 3  # what pairs share, over 8 x 9 x 10 voxels
    assert results["mmd"] == pytest.approx({"n": 3, "value": 720 * 0.2**2, "floor": 720 * 0.01 / 3, "bias": bias}, rel=1e-4)


def test_the_mmd_compares_cases_in_one_orientation_however_their_files_lie(evaluate):
    """One error at the right end of the head, stored from right to left in one case and from left to right in the other."""

    def error(index):
        voxels = torch.zeros(1, 8, 9, 10)
        voxels[:, 7 if index == 1 else 0] = 0.5
        return voxels

    results, _ = evaluate("a", "b", error=error, affine=lambda index: torch.diag(torch.tensor([3.0 - 2 * index, 1, 1, 1])))
    assert results["mmd"] == pytest.approx({"n": 2, "value": 22.5, "floor": 0, "bias": 22.5}, abs=1e-4)  # 90 voxels of 0.25


def test_a_second_run_counts_every_case_once(evaluate):
    results, _ = evaluate("a", "b", runs=2)
    assert (results["n"], results["mmd"]["n"]) == (2, 2)


def test_a_failed_case_is_named_and_left_out_of_the_mean(evaluate):
    results, code = evaluate("a", "bad", "c", "worse")
    assert code == 2
    assert (results["n"], list(results["cases"])) == (2, ["a", "c"])
    assert results["failures"] == {"bad": BAD, "worse": "RuntimeError: first line"}
    assert results["mean"]["psnr"] == pytest.approx(-10 * np.log10(0.1 * 0.3), abs=1e-3)


def test_without_a_single_good_case_there_is_no_mean(evaluate):
    results, code = evaluate("bad")
    assert (code, results["n"], results["mean"], results["cases"]) == (1, 0, {}, {})
    assert results["mmd"] == {"n": 0, "value": None, "floor": None, "bias": None}
    assert results["failures"] == {"bad": BAD}


def test_errors_are_told_in_one_line():
    assert one_line(ValueError()) == "ValueError: "
    assert one_line(KeyError("a\nb")) == "KeyError: 'a\\nb'"
