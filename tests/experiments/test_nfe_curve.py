# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
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
from scripts.experiments.nfe_curve import curve_figure, experiments, markdown, nfe_curve
from scripts.networks import ScoreFusion

SIDES = (32, 36, 40)


@pytest.fixture(autouse=True)
def excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a run sets its own; restored after the test


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
    torch.save(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "tiny.pt")
    content = {"size": "tiny", "precision": "float32", "split": "all", "ckpt_path": str(tmp_path / "tiny.pt")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "tiny.yaml")


@pytest.fixture
def runs(monkeypatch):
    """The settings of every run of a config; the run itself is replaced by a file with results that follow from them."""
    settings = []

    def run(run_id, config_file, **given):
        settings.append(given)
        steps, n = given["steps"], 3
        results = {
            "system": {"curve": given["handlers#0#system#curve"], "nfe": steps},
            "n": n,
            "mean": {"psnr": 30 - steps / 10 - (not given["fusion"]), "ssim": 0.9, "seconds": 2.0 * steps},
            "mmd": {"n": n, "value": 50.0, "floor": 30 + steps, "bias": 20.0 - steps},
            "failures": {},
        }
        Path(given["output_dir"]).mkdir(parents=True, exist_ok=True)
        Path(given["output_dir"], "results.json").write_text(json.dumps(results))

    monkeypatch.setattr(module, "run", run)
    return settings


def command(data, output, *more):
    return ["nfe_curve", str(data), "--output", str(output), *more]


def in_ras(path):
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


def test_the_command_measures_the_runs_that_it_writes_and_repeats_none(data, overlay, tmp_path, monkeypatch, capsys):
    arguments = command(data, tmp_path / "out", "--steps", "1", "2", "--samplers", "ddim", "--overlays", overlay)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    options = {"cwd": bundle_root(), "env": environment, "capture_output": True, "text": True, "timeout": 300}
    ended = subprocess.run([sys.executable, "-m", "scripts", *arguments], check=False, **options)
    assert ended.returncode == 0, ended.stderr
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
    table = markdown(rows)
    assert table in ended.stdout
    assert (tmp_path / "out" / "nfe_curve.png").stat().st_size > 10_000
    monkeypatch.setattr(module, "run", lambda **_: pytest.fail("a complete run was repeated"))
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
    named = {"cases": "max_cases None, not 1", "folder": "dataset_dir"}.get(changed, "weights_and_overlays")
    folder = str(tmp_path) if changed == "folder" else str(data)
    with pytest.raises(BadInput, match=f"made with {named}.*; give --output another folder"):
        nfe_curve(folder, str(tmp_path / "out"), **options, max_cases=1 if changed == "cases" else None)
    assert len(runs) == 1
    assert (tmp_path / "out" / "fusion_one_step_time_1" / "results.json").read_bytes() == before


def test_a_failed_case_ends_the_curve_with_its_name_and_is_tried_again(runs, data, overlay, tmp_path, monkeypatch):
    whole = module.run

    def run(**given):
        whole(**given)
        path = Path(given["output_dir"], "results.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "failures": {"ben": "holds NaN"}}))
        raise SystemExit(2)

    monkeypatch.setattr(module, "run", run)
    for time in (1, 2):
        with pytest.raises(BadInput, match="1 of 4 cases failed, the first with: case ben: holds NaN; mend or remove them"):
            nfe_curve(str(data), str(tmp_path / "out"), steps=[1, 2], ensembles=["fusion"], overlays=[overlay])
        assert [run["steps"] for run in runs] == [1] * time
    assert not (tmp_path / "out" / "nfe_curve.json").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--samplers", "euler"], "no sampler 'euler'; choose from ancestral, ddim"),
        (["--ensembles", "median"], "no ensemble 'median'; choose from fusion, average"),
        (["--overlays", "nowhere.yaml"], "nowhere.yaml: there is no such overlay"),
        (["--overlays", str(Path(bundle_root(), "configs", "phase_2.yaml"))], "phase_2.yaml: 'patch' is not in evaluate.yaml"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_exist_is_refused_in_one_line_before_anything_runs(options, line, runs, data, tmp_path, capsys):
    assert main(command(data, tmp_path / "out", *options)) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"error: {line}")
    assert not runs
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_refused(runs, data, overlay, tmp_path):
    (tmp_path / "tiny.pt").unlink()
    with pytest.raises(BadInput, match=r"tiny\.pt: no such weights file"):
        nfe_curve(str(data), str(tmp_path / "out"), overlays=[overlay])


@pytest.fixture
def rows():
    """Results whose PSNR tells the run."""
    table = experiments([1, 2, 50], ["ddim", "ancestral"], ["fusion", "average"], "time")
    return [
        {
            **experiment._asdict(), "nfe": experiment.steps, "psnr": 20 + index, "ssim": 0.9,
            "mmd_value": 12.345, "mmd_bias": None if index == 0 else 1.5, "fid": 8.25, "seconds": 3.0, "n": 4,
        }
        for index, experiment in enumerate(table)
    ]  # fmt: skip


def test_the_table_has_a_line_for_every_run_and_leaves_empty_what_does_not_exist(rows):
    lines = markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows) == 12
    assert lines[0] == "| ensemble | sampler | NFE | PSNR | SSIM | MMD | MMD bias | FID | seconds a volume | n |"
    assert lines[2] == "| fusion | one_step | 1 | 20.00 | 0.9000 | 12.35 |  | 8.2 | 3.0 | 4 |"
    assert lines[5] == "| fusion | ancestral | 2 | 23.00 | 0.9000 | 12.35 | 1.50 | 8.2 | 3.0 | 4 |"


def test_the_figure_has_a_line_for_every_ensemble_and_sampler_from_the_common_single_step(rows):
    panels = curve_figure(rows).axes
    assert [axes.get_title() for axes in panels] == ["PSNR (dB)", "SSIM", "MMD bias", "FID"]
    for axes in panels:
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "50"]
    lines = {line.get_label(): line for line in panels[0].lines}
    assert list(lines) == ["fusion, ddim", "average, ddim", "fusion, ancestral", "average, ancestral"]
    assert {name: list(line.get_ydata()) for name, line in lines.items()} == {
        "fusion, ddim": [20, 22, 26],
        "fusion, ancestral": [20, 23, 27],
        "average, ddim": [21, 24, 28],
        "average, ancestral": [21, 25, 29],
    }
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 4
    assert np.isnan(panels[2].lines[0].get_ydata()[0])
    assert len(curve_figure(rows).legends) == 1


def test_a_single_step_alone_makes_a_figure_too(rows):
    assert [len(axes.lines) for axes in curve_figure(rows[:2]).axes] == [2, 2, 2, 2]
