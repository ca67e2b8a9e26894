# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from scripts import bundle_root
from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.experiments import nfe_curve as module
from scripts.experiments import study
from scripts.experiments.nfe_curve import nfe_curve
from scripts.networks import ScoreFusion
from scripts.networks.weights import write

SIDES = (32, 36, 40)


@pytest.fixture
def data(tmp_path, draw_head):
    """A folder of two cases, stored in different orientations, and nothing else."""
    for case, sign in (("anna", 1.0), ("ben", -1.0)):
        (tmp_path / "data").mkdir(exist_ok=True)
        head = draw_head(*SIDES)[0, 0].numpy()
        head[10:20] *= 0.5  # not the same from both sides
        affine = np.diag([sign, sign, 1, 1])
        nib.save(nib.Nifti1Image(head, affine), tmp_path / "data" / f"{case}_t1.nii.gz")
    return tmp_path / "data"


@pytest.fixture
def overlay(tmp_path, awaken):
    """A config file for a tiny network with weights, and all cases."""
    write(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "tiny.pt")
    content = {"size": "tiny", "precision": "float32", "split": "all", "ckpt_path": str(tmp_path / "tiny.pt")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "tiny.yaml")


@pytest.fixture
def runs(monkeypatch):
    """The settings of every run of a config; the run itself is replaced by a file with results that follow from them."""
    settings = []

    def run_workflow(workflow, overlays, *, run_id, **given):
        assert (workflow, run_id) == ("evaluate", "evaluating")
        settings.append(given)
        steps, n = given["steps"], 3
        case = {"psnr": 30 - steps / 10 - (not given["fusion"]), "ssim": 0.9, "seconds": 2.0 * steps}
        results = {
            "system": {"name": given["system#name"], "conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "nfe": steps},
            "n": n,
            "mean": case,
            "mmd": {"n": n, "value": 50.0, "floor": 30 + steps, "bias": None if steps == 4 else 20.0 - steps},
            "cases": dict.fromkeys("abc", case),
            "failures": {},
        }
        Path(given["output_dir"]).mkdir(parents=True, exist_ok=True)
        Path(given["output_dir"], "results.json").write_text(json.dumps(results))

    monkeypatch.setattr(study, "run_workflow", run_workflow)
    return settings


def command(data, output, *more):
    return ["nfe_curve", str(data), "--output", str(output), *more]


def in_ras(path):
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


def test_the_command_measures_the_runs_that_it_writes_and_repeats_none(data, overlay, tmp_path, monkeypatch, capsys):
    arguments = command(data, tmp_path / "out", "--steps", "1", "2", "--samplers", "ddim", "--overlays", overlay)
    assert main(arguments) == 0
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "nfe_curve.json").read_text())
    found = [(row["ensemble"], row["sampler"], row["nfe"], row["n"]) for row in rows]
    assert found == [(e, s, n, 2) for s, n in (("one_step", 1), ("ddim", 2)) for e in ("fusion", "average")]
    assert len({row["psnr"] for row in rows}) == 4  # every run was another
    for row in rows:
        folder = tmp_path / "out" / f"{row['ensemble']}_{row['sampler']}_time_{row['nfe']}"
        errors = []
        for case in ("anna", "ben"):
            pred, truth = in_ras(folder / case / f"{case}_pred.nii.gz"), in_ras(data / f"{case}_t1.nii.gz")
            errors.append((pred - truth) / np.ptp(truth))
        assert row["mmd_value"] == pytest.approx((np.mean(errors, axis=0) ** 2).sum(), rel=1e-4)  # volumes are float32
        assert row["mmd_bias"] == pytest.approx((errors[0] * errors[1]).sum(), rel=1e-4)
    table = said[said.index("| system | NFE |") :]
    assert [f"{row['psnr']:.2f}" in line for row, line in zip(rows, table.splitlines()[3:], strict=False)] == [True] * 4
    assert (tmp_path / "out" / "nfe_curve.png").stat().st_size > 10_000
    monkeypatch.setattr(study, "run_workflow", lambda *_, **__: pytest.fail("a complete run was repeated"))
    assert main(arguments) == 0
    assert table in capsys.readouterr().out


def test_every_ensemble_sampler_and_number_of_steps_is_one_run(runs, data, overlay, tmp_path):
    nfe_curve(str(data), str(tmp_path / "out"), steps=[4, 1, 2], spacing="log_snr", max_cases=5, overlays=[overlay])
    assert len(runs) == 2 + 2 * 2 * len(module.SAMPLERS)
    made = [(run["fusion"], run["sampler#_target_"], run["schedule#spacing"], run["steps"]) for run in runs]
    sampler = "scripts.diffusion.sample_"
    assert made[:2] == [(True, f"{sampler}one_step", "time", 1), (False, f"{sampler}one_step", "time", 1)]
    several = {(f, f"{sampler}{s}", "log_snr", n) for f in (True, False) for s in module.SAMPLERS for n in (2, 4)}
    assert (len(made[2:]), set(made[2:])) == (len(several), several)
    assert [run["steps"] for run in runs] == sorted(run["steps"] for run in runs)
    assert {(run["dataset_dir"], run["max_cases"]) for run in runs} == {(str(data), 5)}
    folders = [Path(run["output_dir"]) for run in runs]
    assert len(set(folders)) == len(runs)
    assert tmp_path / "out" / "average_dpm_solver_pp_2m_log_snr_4" in folders


def test_names_given_twice_are_one_run(runs, data, overlay, tmp_path):
    twice = {"samplers": ["ddim", "ddim"], "ensembles": ["fusion", "fusion"], "steps": [2, 1, 2]}
    nfe_curve(str(data), str(tmp_path / "out"), **twice, overlays=[overlay])
    assert [run["steps"] for run in runs] == [1, 2]


def test_an_interrupted_curve_goes_on_with_the_run_that_is_missing(runs, data, overlay, tmp_path):
    options = {"steps": [1, 2], "samplers": ["ddim"], "ensembles": ["average"], "overlays": [overlay]}
    nfe_curve(str(data), str(tmp_path / "out"), **options)
    (tmp_path / "out" / "average_ddim_time_2" / "results.json").unlink()
    nfe_curve(str(data), str(tmp_path / "out"), **options)
    assert [run["steps"] for run in runs] == [1, 2, 2]


@pytest.mark.parametrize("changed", ["cases", "weights", "overlay", "folder"])
def test_results_of_something_else_are_neither_taken_nor_overwritten(changed, runs, data, overlay, tmp_path):
    options = {"steps": [1], "ensembles": ["fusion"], "overlays": [overlay]}
    nfe_curve(str(data), str(tmp_path / "out"), **options)
    before = (tmp_path / "out" / "fusion_one_step_time_1" / "results.json").read_bytes()
    if changed == "weights":
        torch.save({"another": torch.ones(1)}, tmp_path / "tiny.pt")
    elif changed == "overlay":
        Path(overlay).write_text(Path(overlay).read_text() + "samples: 2\n")
    elif changed == "folder":
        (data / "ben_t1.nii.gz").rename(data / "carla_t1.nii.gz")
    named = {
        "cases": "setting max_cases = None, not 1", "weights": "weights ckpt_path = ", "overlay": "setting samples = 1, not 2",
        "folder": "case carla = nothing, not ",
    }  # fmt: skip
    with pytest.raises(BadInput, match=f"was made with {named[changed]}.*; give --output another folder"):
        nfe_curve(str(data), str(tmp_path / "out"), **options, max_cases=1 if changed == "cases" else None)
    assert len(runs) == 1
    assert (tmp_path / "out" / "fusion_one_step_time_1" / "results.json").read_bytes() == before


def test_a_failed_case_ends_the_curve_with_its_name_and_is_tried_again(runs, data, overlay, tmp_path, monkeypatch):
    whole = study.run_workflow

    def run_workflow(*arguments, **given):
        whole(*arguments, **given)
        path = Path(given["output_dir"], "results.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "failures": {"ben": "holds NaN"}}))
        raise SystemExit(2)

    monkeypatch.setattr(study, "run_workflow", run_workflow)
    for time in (1, 2):
        with pytest.raises(BadInput, match="1 of 4 cases failed, the first with: case ben: holds NaN; mend or remove them"):
            nfe_curve(str(data), str(tmp_path / "out"), steps=[1, 2], ensembles=["fusion"], overlays=[overlay])
        assert [run["steps"] for run in runs] == [1] * time
    assert not (tmp_path / "out" / "nfe_curve.json").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--samplers", "euler"], "no sampler 'euler'; choose from ancestral, ddim"),
        (["--steps", "0"], "--steps 0: a sampler needs at least 1 step"),
        (["--ensembles", "median"], "no ensemble 'median'; choose from fusion, average"),
        (["--overlays", "nowhere.yaml"], "nowhere.yaml: there is no such config"),
        (["--overlays", "OVERLAY"], "typo.yaml: 'stepz' is not in evaluate.yaml"),
        (["--overlays", str(Path(bundle_root(), "configs", "phase_2.yaml"))], "phase_2.yaml: 'patch' is not in evaluate.yaml"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_exist_is_refused_in_one_line_before_anything_runs(options, line, runs, data, tmp_path, capsys):
    (tmp_path / "typo.yaml").write_text("stepz: 2")
    options = [option.replace("OVERLAY", str(tmp_path / "typo.yaml")) for option in options]
    assert main(command(data, tmp_path / "out", *options)) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"error: {line}")
    assert not runs
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_refused_in_one_line(data, overlay, tmp_path, capsys):
    (tmp_path / "tiny.pt").unlink()
    assert main(command(data, tmp_path / "out", "--overlays", overlay)) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/tiny.pt: no such weights file; train them first")


def test_the_table_has_a_line_for_every_run_and_leaves_empty_what_does_not_exist(runs, data, overlay, tmp_path, capsys):
    nfe_curve(str(data), str(tmp_path / "out"), steps=[1, 4], samplers=["ddim"], overlays=[overlay])
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("| system | NFE | PSNR (dB) | SSIM | MMD | MMD bias | FID | seconds a volume | n |") :]
    assert len([line for line in table if line.startswith("| ")]) == 3 + 4  # a head of two and the task
    assert any(line.startswith(r"| fusion, one\_step, time, 1 | 1 | 29.90 ") and "| 50.00 | 19.00 |" in line for line in table)
    assert any(line.startswith("| average, ddim, time, 4 | 4 | 28.60 ") and "| 50.00 | [^1] |" in line for line in table)
    assert "[^1]: MMD bias is undefined for n = 3" in table
