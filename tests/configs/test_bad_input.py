# SPDX-License-Identifier: Apache-2.0
"""What cannot be used ends in one line that says so, and leaves nothing behind."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from test_runs import FINE, ONE_STEP, block_averages, draw, launch, save

from scripts import bundle_root
from scripts.errors import BadInput, root_cause
from scripts.networks import ScoreFusion
from scripts.networks.weights import averaged, weights_of
from scripts.running.checks import preflight
from scripts.running.workflow import run_workflow

pytestmark = pytest.mark.filterwarnings("ignore")
COARSE = FINE @ np.array([[4, 0, 0, 1.5], [0, 4, 0, 1.5], [0, 0, 4, 1.5], [0, 0, 0, 1]])


@pytest.fixture
def weights(tmp_path, seed):
    """A function that writes weights of a tiny network."""

    def weights(**options):
        path = tmp_path / "weights.pt"
        torch.save(ScoreFusion(**{"size": "tiny", **options}).state_dict(), path)
        return path

    return weights


@pytest.fixture
def refusal(capsys):
    """A function that runs a config and returns the one line on the terminal with which it ends."""

    def refusal(*arguments, **overrides):
        with pytest.raises(Exception) as caught:  # MONAI wraps what happens in a config
            launch(*arguments, **overrides)
        capsys.readouterr()
        sys.excepthook(caught.type, caught.value, caught.tb)
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        return line

    return refusal


def save_both(folder, case, rng, **changed):
    """A case of `task_both`: a coarse flair and a fine t1ce."""
    flair, t1ce = block_averages(draw(rng)).astype(np.float32), draw(rng)
    save(folder / f"{case}_flair.nii.gz", changed.get("flair", flair), COARSE)
    save(folder / f"{case}_t1ce.nii.gz", changed.get("t1ce", t1ce))


def save_bad_cases(folder, rng):
    """Five cases that cannot be used, and what is to be said of each."""
    holed = draw(rng)
    holed[3, 4, 5] = np.nan
    save_both(folder, "nan", rng, t1ce=holed)
    save_both(folder, "constant", rng, flair=np.full((8, 9, 10), 7, dtype=np.float32))
    save_both(folder, "fourth", rng, t1ce=np.repeat(draw(rng)[..., None], 2, axis=3))
    save_both(folder, "grids", rng, t1ce=draw(rng, (32, 36, 41)))
    save_both(folder, "broken", rng)
    whole = (folder / "broken_t1ce.nii.gz").read_bytes()
    (folder / "broken_t1ce.nii.gz").write_bytes(whole[: len(whole) // 2])
    return {
        "nan": "holds NaN",
        "constant": "every voxel is 7",
        "fourth": "is 32x36x40x2 and so not a 3D volume",
        "grids": "on the fine grid but grids_t1ce.nii.gz is",
        "broken": "cannot be read as NIfTI",
    }


def log_of(caplog):
    assert not [record for record in caplog.records if record.exc_info]
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("good", [1, 0])
def test_bad_cases_are_named_and_the_good_ones_written(good, weights, tmp_path, rng, caplog):
    caplog.set_level(logging.INFO)
    bad = save_bad_cases(tmp_path / "in", rng)
    if good:
        save_both(tmp_path / "in", "good", rng)
    paths = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "ckpt_path": str(weights(conditions=2))}
    with pytest.raises(SystemExit) as ended:
        launch("inference", "inference", "task_both", **paths)
    assert ended.value.code == (2 if good else 1)
    lines = log_of(caplog)
    assert f"{good} of {good + 5} cases done" in lines
    for case, fact in bad.items():
        (said,) = [line for line in lines if fact in line]
        assert said.startswith(f"case {case}: ") and "\n" not in said
    assert lines[-1] == f"failed, as said above and in run.json: {', '.join(sorted(bad))}"
    assert not [record for record in caplog.records if record.exc_info]  # no traceback
    written = [str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*") if path.is_file()]
    assert sorted(written) == ["good/good_pred.nii.gz"] * good + ["ledger.jsonl", "run.json"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["failures"].keys() == bad.keys()
    assert record["files"]["used"] == 2 * good
    assert sum(group["count"] for group in record["files"]["refused"]) == 10
    if good:
        assert nib.load(tmp_path / "out" / "good" / "good_pred.nii.gz").shape == (32, 36, 40)


def test_a_missing_folder_ends_a_run_with_one_line(refusal, weights, tmp_path):
    paths = {"dataset_dir": str(tmp_path / "nowhere"), "output_dir": str(tmp_path / "out"), "ckpt_path": str(weights())}
    assert "there is no such folder" in refusal("inference", "inference", **paths)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_cases_ends_a_run_with_one_line(refusal, weights, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").touch()
    paths = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "ckpt_path": str(weights())}
    assert "no case with t1" in refusal("inference", "inference", **paths)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"size": "compact"}, {"conditions": 2}, {"planes": ["axial"]}, {"slab": 3}], ids=str)
def test_weights_of_another_network_end_a_run_with_one_line(options, refusal, weights, tmp_path, rng):
    save(tmp_path / "in" / "a_t1.nii.gz", draw(rng))
    ckpt_path = weights(**options)
    paths = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "ckpt_path": str(ckpt_path)}
    line = refusal("inference", "inference", **paths)
    assert str(ckpt_path) in line
    assert "weights of another network" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"not weights"], ids=["missing", "not weights"])
def test_files_that_hold_no_weights_end_a_run_with_one_line(content, refusal, tmp_path, rng):
    save(tmp_path / "in" / "a_t1.nii.gz", draw(rng))
    if content:
        (tmp_path / "model.pt").write_bytes(content)
    paths = {"dataset_dir": str(tmp_path / "in"), "ckpt_path": str(tmp_path / "model.pt")}
    assert str(tmp_path / "model.pt") in refusal("inference", "inference", **paths, output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_on_the_command_line_ends_a_run_with_one_line(refusal, monkeypatch):
    config = str(Path(bundle_root(), "configs", "inference.yaml"))
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "inference", "--config_file", config, "--step", "4"])
    assert "the command line: 'step' is not in inference.yaml" in refusal("inference", "inference", step=4)


def test_an_unknown_key_in_an_overlay_ends_a_run_with_one_line(refusal, monkeypatch, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("sampler#eta: 1.0\n")
    files = [str(Path(bundle_root(), "configs", "inference.yaml")), str(overlay)]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "inference", f"--config_file={files}"])
    assert "mine.yaml: 'sampler#eta' is not in inference.yaml" in refusal("inference", "inference")


def train(refusal, tmp_path, **overrides):
    folders = {"dataset_dir": str(tmp_path / "in"), "ckpt_dir": str(tmp_path / "run")}
    return refusal("training", "train_2d", **ONE_STEP, **folders, patch=[24, 24], **overrides)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_training_case_ends_a_training_with_one_line(workers, refusal, tmp_path, rng):
    save(tmp_path / "in" / "a_t1.nii.gz", np.full((32, 32, 32), 5, dtype=np.float32))
    save(tmp_path / "in" / "b_t1.nii.gz", draw(rng))
    assert "a_t1.nii.gz: every voxel is 5" in train(refusal, tmp_path, num_workers=workers)
    assert not (tmp_path / "run" / "latest.pt").exists()


def test_a_bad_validation_case_ends_a_training_with_one_line(refusal, tmp_path, rng, caplog):
    save(tmp_path / "in" / "a_t1.nii.gz", draw(rng))
    save(tmp_path / "in" / "b_t1.nii.gz", np.full((32, 32, 32), 5, dtype=np.float32))
    assert "b_t1.nii.gz: every voxel is 5" in train(refusal, tmp_path)
    log_of(caplog)
    assert not (tmp_path / "run" / "latest.pt").exists()  # it ended before the first step


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), BadInput("case a: no"), ValueError("a bug")], ids=repr)
@pytest.mark.parametrize("logger", ["monai.handlers.StatsHandler", "ignite.engine.engine.SupervisedEvaluator"])
def test_what_ends_an_engine_is_logged_only_where_nobody_else_tells_it(logger, error, caplog):
    preflight()
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("applying transform") from cause
    except BaseException as ended:
        logging.getLogger(logger).exception(f"Exception: {ended}")
    assert len(caplog.records) == (str(error) == "a bug")


def test_the_cause_of_a_wrapped_error_is_found():
    try:
        try:
            raise BadInput("case a: no")
        except BadInput as error:
            raise RuntimeError("Failed to instantiate") from error
    except RuntimeError as wrapped:
        assert str(root_cause(wrapped)) == "case a: no"
    assert root_cause(RuntimeError("another")) is None


@pytest.fixture
def bundle(tmp_path):
    """A function that runs `python -m monai.bundle` from a folder that is not the bundle's."""

    def bundle(*arguments):
        command = [sys.executable, "-m", "monai.bundle", *arguments]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return bundle


def test_a_refused_command_prints_one_line_and_returns_1(bundle, tmp_path):
    configs = Path(bundle_root(), "configs")
    files = [str(configs / "inference.yaml"), str(configs / "phase_2.yaml")]
    ended = bundle("run", "inference", "--config_file", str(files), "--dataset_dir", str(tmp_path))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    assert [line for line in ended.stderr.splitlines() if "phase_2.yaml: 'patch' is not in inference.yaml" in line]
    assert [line for line in ended.stderr.splitlines() if line.startswith("error: ")] == ended.stderr.splitlines()[-1:]


@pytest.mark.parametrize("value", ["false", "no", "0"])
def test_a_switch_that_python_would_take_for_true_is_refused(value):
    arguments = ["--config_file", str(Path(bundle_root()) / "configs" / "inference.yaml"), "--fusion", value]
    with pytest.raises(BadInput, match=f"--fusion {value} is neither True nor False"):
        preflight(arguments)


@pytest.mark.parametrize(("key", "value"), [("fusion", "False"), ("steps", "4"), ("block", "[1,1,4]"), ("planes", "['axial']")])
def test_a_value_as_the_command_line_gives_it_is_taken(key, value):
    preflight(["--config_file", str(Path(bundle_root()) / "configs" / "inference.yaml"), f"--{key}", value])


@pytest.mark.parametrize(
    ("key", "value", "fact"),
    [
        ("steps", "two", "is no number; the default is 1"),
        ("steps", "1.5", "is no whole number; the default is 1"),
        ("sigma_data", "nan", "is no number; the default is 0.058"),
        ("sampler", "ddim", "is no component; set its parts, as --sampler#_target_"),
        ("block", "4", "is no list with something in it"),
        ("block", "[4,a,4]", "is no list of whole numbers"),
        ("planes", "axial", "is no list with something in it"),
        ("conditions", "[]", "is no list with something in it"),
        ("device", "quantum", "is not there"),
        ("interval", "null", "leaves no step to call; without weights it does nothing: interval#weights=null"),
    ],
)
def test_a_value_of_another_kind_is_refused(key, value, fact):
    arguments = ["--config_file", str(Path(bundle_root()) / "configs" / "inference.yaml"), f"--{key}", value]
    with pytest.raises(BadInput, match=rf"^the command line: --{key} {re.escape(value)} {fact}"):
        preflight(arguments)


@pytest.mark.parametrize(
    ("key", "value", "range_"),
    [
        *((key, 0, "1 or more") for key in ("max_epochs", "steps_per_epoch", "batch_size", "accumulate", "val_interval")),
        ("num_workers", -1, "0 or more"),
        ("learning_rate", "-1.0", "above 0"),
        ("mirror", 2, "from 0 to 1"),
        ("seed", -1, "0 or more"),
        ("regression_share", "2", "from 0 to 1"),
        ("ema_decay", 1.5, "between 0 and 1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(key, value, range_, tmp_path):
    with pytest.raises(BadInput, match=f"^options: {key} {value} is not {range_}"):
        run_workflow("train_2d", run_id="training", **{key: value})
    (tmp_path / "mine.yaml").write_text(f"{key}: {value}\n")
    with pytest.raises(BadInput, match=rf"^mine\.yaml: {key} {value} is not {range_}"):
        run_workflow("train_2d", [tmp_path / "mine.yaml"], run_id="training")


@pytest.mark.parametrize("content", ["a: [1\n", "- 1\n", "", "\udcff"], ids=["cut", "list", "empty", "binary"])
def test_a_file_that_is_no_config_is_named(content, tmp_path):
    (tmp_path / "mine.yaml").write_text(content, errors="surrogateescape")
    with pytest.raises(BadInput, match=r"mine\.yaml: (cannot be read as a config|holds no ids and values)"):
        run_workflow("inference", [tmp_path / "mine.yaml"], run_id="inference")


@pytest.mark.parametrize(
    "content", [[1], torch.ones(3), 3, "x", {"a": 3}, {"objects": {"ema": [1]}}, {1: torch.ones(1)}], ids=str
)
def test_a_checkpoint_that_holds_something_else_is_named(content, tmp_path):
    torch.save(content, tmp_path / "else.pt")
    for read in (weights_of, averaged):
        with pytest.raises(BadInput, match=r"else\.pt: (holds no tensors by name|not a checkpoint of a training)"):
            read(tmp_path / "else.pt")


@pytest.mark.parametrize(
    ("overlays", "options", "line"),
    [
        ([], {"stepz": 2}, r"^options: 'stepz' is not in inference\.yaml"),
        ([], {"schedule#knd": "linear"}, r"^options: 'schedule#knd' is not in inference\.yaml"),
        (["phase_2"], {}, r"^phase_2\.yaml: 'patch' is not in inference\.yaml"),
        (["task_unheard_of"], {}, r"^task_unheard_of: there is no such config"),
        ([], {"fusion": "no"}, r"--fusion no is neither True nor False"),
    ],
    ids=str,
)
def test_python_is_no_way_around_the_check_of_keys(overlays, options, line):
    with pytest.raises(BadInput, match=line):
        run_workflow("inference", overlays, run_id="inference", **options)


def test_a_workflow_refuses_what_it_does_not_use_of_the_one_below_it():
    with pytest.raises(BadInput, match=r"^ensemble_madm\.yaml: 'planes' is not in train_2d\.yaml"):
        run_workflow("train_2d", ["ensemble_madm"], run_id="training")


def test_an_overlay_that_was_complete_until_0_7_starts_again_with_its_base(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command) or sys.exit())
    base, file = (str(Path(bundle_root(), "configs", f"{name}.yaml")) for name in ("inference", "evaluate"))
    with pytest.raises(SystemExit):
        preflight(["run", "evaluating", "--config_file", file, "--split", "all"], base="inference.yaml")
    both = f"['{base}','{file}']"
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file", both, "--split", "all"]
    assert started == [(sys.executable, command)]
    assert f'note: evaluate.yaml goes over inference.yaml now: --config_file "{both}"' in capsys.readouterr().out
    preflight(command[3:], base="inference.yaml")  # which goes on
    assert len(started) == 1
