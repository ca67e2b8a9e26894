# SPDX-License-Identifier: Apache-2.0
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose

from scripts.diffusion import sample_ddim
from scripts.errors import BadInput, one_line
from scripts.evaluation import FilterBank, Results, psnr, ssim
from scripts.evaluation import results as module
from scripts.evaluation.frechet import frechet_distance, kernel_distance
from scripts.evaluation.results import case_metrics
from scripts.evaluation.uncertainty_metrics import mace
from scripts.measurement import BlockAverage, Task, ThickScans
from scripts.running import CaseEvaluator, TolerantDataset

KEYS = [  # what others read; there may be more
    "psnr", "ssim", "ssim_gaussian", "mae", "psnr_foreground", "ssim_foreground", "mae_foreground",
    "slice_consistency_sagittal", "slice_consistency_coronal", "slice_consistency_axial",
]  # fmt: skip
ASKED = SimpleNamespace(nfe=7, sampler=partial(sample_ddim, eta=1.0))
BAD = "case bad: is 3x3x3 but 4x4x4; resample it"


def load(case):
    if case["case"] == "bad":
        raise BadInput(BAD)
    if case["case"] == "worse":
        raise RuntimeError("first line\nsecond line")
    return case


@pytest.fixture
def evaluate(tmp_path, rng):
    """A function (names) -> content of results.json, exit code; the result of a case is off by its number / 10.

    change: a function (prediction, label, index), which may change a case's volumes (1, H, W, D); loaded: a function (label,
    index) that gives it more of them; more is for `Results`.
    """

    def evaluate(
        *names, error=lambda index: torch.full((1, 1, 1, 1), index / 10), affine=lambda index: torch.eye(4), runs=1,
        change=lambda pred, label, index: {}, loaded=lambda label, index: {}, **more,
    ):  # fmt: skip
        def case(index, name):
            label = MetaTensor(torch.from_numpy(rng.random((1, 8, 9, 10))), affine=affine(index))
            return {"case": name, "index": index, "image": error(index), "label": label, **loaded(label, index)}

        data = TolerantDataset([case(index, name) for index, name in enumerate(names, start=1)], load)
        evaluator = CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(data, batch_size=1),
            network=torch.nn.Identity(),
            inferer=lambda inputs, network, *args, **kwargs: inputs,
            postprocessing=lambda d: {
                **d,
                "pred": d["label"] + d["pred"],
                **change(d["label"] + d["pred"], d["label"], int(d["index"])),
            },
            val_handlers=[Results(str(tmp_path / "new" / "results.json"), {"size": "tiny"}, ASKED, **more)],
        )
        code = 0
        try:
            for _ in range(runs):
                evaluator.run()
        except SystemExit as ended:
            code = ended.code
        return json.loads((tmp_path / "new" / "results.json").read_text(), parse_constant=pytest.fail), code

    return evaluate


def test_results_hold_every_case_and_the_mean_of_the_cases(evaluate, tmp_path):
    results, code = evaluate("a", "b", "c")
    assert code == 0
    assert results["system"] == {"size": "tiny", "sampler": "sample_ddim", "nfe": 7}
    assert results["n"] == 3
    assert results["failures"] == {}
    assert list(results["cases"]) == ["a", "b", "c"]
    for index, metrics in enumerate(results["cases"].values(), start=1):
        assert metrics["psnr"] == pytest.approx(-20 * np.log10(index / 10), abs=1e-3)
        assert metrics["psnr_foreground"] == pytest.approx(metrics["psnr"], abs=1e-3)
        assert metrics["mae"] == pytest.approx(index / 10)
        assert metrics["slice_consistency_axial"] == pytest.approx(1)
        assert metrics["seconds"] >= 0
        assert metrics["ssim_gaussian"] is None  # a side is smaller than its window
    for key, mean in results["mean"].items():
        values = [metrics[key] for metrics in results["cases"].values()]
        assert mean == (None if None in values else pytest.approx(np.mean(values)))
    assert {*KEYS, "seconds"} <= results["mean"].keys()
    assert 0.1 < results["peak_memory_gb"] < 100
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


def test_the_tumour_is_measured_by_itself_and_an_empty_mask_is_named(evaluate, caplog):
    """The result of a case is off by its number / 10 everywhere, and by three times that in the tumour."""

    def loaded(label, index):
        tumour = torch.zeros_like(label)
        tumour[:, 2:5, 3:6, 4:8] = index % 2
        return {"mask": tumour}

    def error(index):
        return index / 10 * (1 + 2 * loaded(torch.zeros(1, 8, 9, 10), index)["mask"])

    with caplog.at_level("WARNING"):
        results, code = evaluate("a", "b", "c", error=error, loaded=loaded)
    assert code == 0
    assert "case b: its mask is empty" in caplog.text
    assert [results["cases"][name]["mae_tumour"] for name in "abc"] == [pytest.approx(0.3), None, pytest.approx(0.9)]
    assert results["cases"]["a"]["psnr_tumour"] == pytest.approx(-20 * np.log10(0.3), abs=1e-3)
    assert results["mean"]["mae_tumour"] == pytest.approx(0.6)  # of the cases that have it
    assert results["cases"]["a"]["ssim_tumour"] < 1


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


def test_a_doubt_of_a_prediction_stands_with_its_case_and_in_the_log(evaluate, caplog):
    results, _ = evaluate("a", "b", change=lambda pred, label, index: {"doubts": ["of units"] if index == 2 else []})
    assert [results["cases"][case].get("doubts") for case in "ab"] == [None, ["of units"]]
    assert "case b: of units" in caplog.messages and "case b: of units" in results["warnings"]


def test_what_is_undefined_is_empty_in_the_file_whatever_measured_it(evaluate, monkeypatch):
    """As the spread of SSIM where a side is smaller than its window."""
    monkeypatch.setattr(module, "run_spread", lambda *_: {"ssim_std": float("nan")})
    results, code = evaluate("a", change=lambda pred, label, index: {"runs": torch.cat([pred, pred])})
    assert code == 0 and results["cases"]["a"]["ssim_std"] is None


def test_a_second_run_counts_every_case_once(evaluate):
    results, _ = evaluate("a", "b", runs=2, features=FilterBank())
    assert (results["n"], results["mmd"]["n"], results["fid"]["n"]) == (2, 2, 2)


def test_fid_and_kid_are_those_of_the_named_features(evaluate):
    volumes = []

    def keep(pred, label, index):
        volumes.append((pred[0].numpy(), label[0].numpy()))
        return {}

    results, _ = evaluate("a", "b", "c", change=keep, features=FilterBank())
    pred, truth = (np.array([FilterBank()(pair[side]) for pair in volumes]) for side in (0, 1))
    kid, error = kernel_distance(pred, truth)
    about = {"n": 3, "features": "filter_bank"}
    value = pytest.approx(frechet_distance(pred, truth), rel=1e-4)
    assert results["fid"] == {"value": value, **about}
    assert results["kid"] == {"value": pytest.approx(kid, rel=1e-3), "standard_error": pytest.approx(error, rel=1e-3), **about}


@pytest.mark.parametrize("off", [None, False])
def test_without_features_there_is_no_fid(off, evaluate):
    results, _ = evaluate("a", "b", features=off)
    assert results["fid"] == {"value": None, "n": 0, "features": None}
    assert results["kid"] == {"value": None, "standard_error": None, "n": 0, "features": None}


def test_a_single_case_has_no_fid(evaluate):
    results, _ = evaluate("a", features=FilterBank())
    assert results["fid"] == {"value": None, "n": 1, "features": "filter_bank"}


def test_where_something_was_measured_and_sampled_there_is_more_to_tell(rng):
    pred, label, uncertainty = rng.random((3, 12, 13, 14), dtype=np.float32)
    found = case_metrics(pred, label, uncertainty=uncertainty, degradation=BlockAverage((4, 4, 4)))
    assert {*KEYS, "measurement_error", "mace"} <= found.keys()
    assert all(isinstance(value, float) for value in found.values())
    assert found["mace"] == mace(uncertainty, pred, label)
    assert found["psnr_foreground"] == psnr(pred, label, label > 0)
    assert found["ssim"] == pytest.approx(ssim(pred, label), abs=1e-6)


def test_the_uncertainty_map_of_a_case_is_measured(evaluate):
    results, _ = evaluate("a", change=lambda pred, label, index: {"uncertainty": torch.full_like(label, 0.3)})
    assert results["cases"]["a"]["mace"] == pytest.approx(0.2)  # the error is 0.1 everywhere
    assert results["calibration"]["predicted"] == pytest.approx([0.3] * 10)
    assert results["calibration"]["actual"] == pytest.approx([0.1] * 10, rel=1e-4)


def test_the_measurement_error_is_counted_in_ras_however_files_lie(evaluate):
    """Whole blocks start where RAS does: an error in the ninth voxel from the left lies in none."""

    def error(index):
        voxels = torch.zeros(1, 8, 9, 10)
        voxels[:, :, 8 if index == 1 else 0] = 0.5
        return voxels

    affine = lambda index: torch.diag(torch.tensor([1, 3.0 - 2 * index, 1, 1]))  # noqa: E731
    results, _ = evaluate("a", "b", error=error, affine=affine, task=Task(["t1"], "t1", BlockAverage((4, 4, 2))))
    assert [metrics["measurement_error"] for metrics in results["cases"].values()] == pytest.approx([0, 0], abs=1e-7)


def test_the_task_is_told_whole(evaluate):
    blocks = [[1, 1, 4], [4, 1, 1]]
    told = evaluate("a", task=Task(["t1"], "t1", ThickScans(blocks, smooth=False)))[0]["task"]
    assert told == {
        "title": "thick planes 1x1x4 + 4x1x1 of t1", "conditions": ["t1"], "target": "t1", "blocks": blocks, "smooth": False,
        "consistency": True,
    }  # fmt: skip


def test_a_perfect_case_keeps_the_file_valid_and_counts_in_what_is_finite(evaluate):
    results, code = evaluate("a", "b", error=lambda index: torch.full((1, 1, 1, 1), (index - 1) / 10))
    assert code == 0
    assert (results["cases"]["a"]["psnr"], results["cases"]["a"]["mae"]) == (None, 0)
    assert (results["mean"]["psnr"], results["mean"]["mae"]) == pytest.approx((20, 0.05), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("pred", "case b: the prediction has 1 voxels that are NaN or infinite; try precision float32 or other weights"),
        ("label", "case b: the truth is constant or not finite, so there is no scale to measure on; remove the case"),
        ("uncertainty", "case b: the uncertainty map has voxels that are NaN or infinite; try precision float32"),
    ],
)
def test_a_case_that_is_not_finite_is_named_and_the_rest_goes_on(key, line, value, evaluate, caplog):
    def spoil(pred, label, index):
        volumes = {"pred": pred, "label": label.clone(), "uncertainty": torch.zeros_like(label)}
        if index == 2:
            volumes[key][0, 3, 4, 5] = value
        return volumes

    results, code = evaluate("a", "b", "c", change=spoil, features=FilterBank())
    assert code == 2
    assert results["failures"] == {"b": line}
    assert [record.getMessage() for record in caplog.records].count(line) == 1
    assert list(results["cases"]) == ["a", "c"]
    assert [results[name]["n"] for name in ("mmd", "fid", "kid")] == [2, 2, 2]
    assert results["mean"]["mae"] == pytest.approx(0.2)


def test_a_case_without_foreground_is_named_and_has_what_needs_none(evaluate, caplog):
    def empty(pred, label, index):
        return {"label": torch.zeros_like(label), "pred": torch.full_like(pred, 0.1)} if index == 1 else {}

    results, code = evaluate("a", "b", change=empty)
    assert code == 0
    assert "case a: the truth has no foreground; what is measured there is left empty" in caplog.messages
    metrics = results["cases"]["a"]
    assert {name for name in KEYS if metrics[name] is None} == {
        "ssim_gaussian", *(name for name in KEYS if "foreground" in name or "slice" in name)
    }  # fmt: skip
    assert metrics["psnr"] == pytest.approx(20, abs=1e-3)
    assert results["mean"]["mae_foreground"] == pytest.approx(0.2)  # of the other case alone


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
    assert (results["fid"]["value"], results["kid"]["value"]) == (None, None)
    assert results["failures"] == {"bad": BAD}


def test_errors_are_told_in_one_line():
    assert one_line(ValueError()) == "ValueError: "
    assert one_line(KeyError("a\nb")) == "KeyError: 'a\\nb'"
    meant = ValueError("what to do")
    meant.__cause__ = KeyError("x")
    assert one_line(meant) == "ValueError: what to do"
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        Compose([None])(torch.zeros(1))
    assert one_line(caught.value) == "TypeError: 'NoneType' object is not callable"  # not MONAI's words
