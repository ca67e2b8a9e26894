# SPDX-License-Identifier: Apache-2.0
"""The main commands, each against the bundle's own workflow that it calls."""

import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import run

from scripts import bundle_root
from scripts.__main__ import main
from scripts.files import sha256
from scripts.models import add
from scripts.running.commands import _overlays_and_ids

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32"]


def test_a_file_is_restored_as_monai_restores_its_folder(file, weights, tmp_path, capsys):
    assert main(["restore", str(file), "-o", str(tmp_path / "ours"), "--weights", str(weights), *TINY]) == 0
    assert "next: score-fusion report" in capsys.readouterr().out
    (tmp_path / "in").mkdir()
    file.rename(tmp_path / "in" / file.name)
    run(
        run_id="inference", config_file=f"{bundle_root()}/configs/inference.yaml", dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / "monai"), ckpt_path=str(weights), size="tiny", precision="float32", logging_file=False,
    )  # fmt: skip
    ours, theirs = (nib.load(tmp_path / who / "anna" / "anna_pred.nii.gz") for who in ("ours", "monai"))
    assert np.array_equal(ours.get_fdata(), theirs.get_fdata())
    assert np.array_equal(ours.affine, theirs.affine)


def test_options_reach_the_workflow(file, weights, tmp_path):
    options = ["--steps", "2", "--samples", "2", "--seed", "5", "--device", "cpu", "--overlays", "ensemble_tpdm"]
    assert main(["restore", str(file), "-o", str(tmp_path / "out"), "--weights", str(weights), *TINY, *options]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {key: record["system"][key] for key in ("nfe", "samples", "seed")} == {"nfe": 2, "samples": 2, "seed": 5}
    assert (tmp_path / "out" / "anna" / "anna_uncertainty.nii.gz").is_file()


@pytest.mark.parametrize("word", ["T1w", "T1", "t1"])
def test_a_contrast_by_any_of_its_names_is_one(word):
    _, options = _overlays_and_ids(task="any", contrast=word)
    assert options == {"conditions": ["t1"], "target": "t1"}


def test_a_plane_is_trained_exported_and_measured_by_three_commands(image, tmp_path, capsys):
    fine = np.kron(image.get_fdata(dtype=np.float32), np.ones((4, 4, 4), dtype=np.float32))
    for case in ("a", "b"):
        nib.save(nib.Nifti1Image(fine, np.eye(4)), tmp_path / f"{case}_t1.nii.gz")
    once = [
        "max_epochs=1",
        "steps_per_epoch=1",
        "batch_size=1",
        "patch=[24, 24]",
        "split_train=all",
        "split_val=all",
        "val_cases=1",
    ]
    settings = [*TINY, *(word for value in once for word in ("--set", value))]
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run"), "--plane", "axial", *settings]) == 0
    exported = tmp_path / "axial.pt"
    said = capsys.readouterr().out
    assert f"score-fusion export {tmp_path / 'run' / 'latest.pt'}" in said
    assert "training: 1 step on " in said and "resuming" not in said
    assert main(["export", str(tmp_path / "run" / "latest.pt"), str(exported)]) == 0
    alone = ["--overlays", "ensemble_single", "--set", "planes=['axial']", "--set", "fusion=False", "--split", "all"]
    assert main(["evaluate", str(tmp_path), "-o", str(tmp_path / "eval"), "--weights", str(exported), *TINY, *alone]) == 0
    assert json.loads((tmp_path / "eval" / "results.json").read_text())["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "stepz=2"], "'stepz' is not in inference.yaml"),
        (["--set", "steps=two"], "--steps two is no number"),
        (["--set", "steps"], "--set steps: is not KEY=VALUE"),
        (["--set", "device=$__import__('os').system('true')"], "is not KEY=VALUE with a plain value"),
        (["--set", "planes=['a"], "the value cannot be read"),
        (["--task", "t1_to_ct"], "no task 't1_to_ct'; choose one of any, both, "),
        (["--overlays", "nothing"], "nothing: there is no such config"),
        (["--task", "translation", "--contrast", "t1"], "--contrast t1: task translation makes flair of t1ce; leave it out"),
        (["--task", "both", "--contrast", "flair"], "--contrast flair: task both makes flair of flair and t1ce; leave it out"),
        (["--weights", "nowhere.pt"], "nowhere.pt: no such weights file"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_one_line(arguments, line, file, tmp_path, capsys):
    assert main(["restore", str(file), "-o", str(tmp_path / "out"), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert line in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_are_used_by_their_name(file, weights, tmp_path):
    add(str(weights), sha256(weights), name="mine")
    weights.unlink()
    options = ["-o", str(tmp_path / "out"), "--model", "mine", *TINY]
    assert main(["restore", str(file), *options]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model"]["file"] == "mine.pt"
    assert nib.load(tmp_path / "out" / "anna" / "anna_pred.nii.gz").shape == tuple(4 * side for side in nib.load(file).shape)


@pytest.mark.parametrize("manner", [["--json-log"], ["--quiet"]], ids=str)
def test_a_run_says_no_more_than_it_was_asked_to(manner, file, weights, tmp_path, capsys):
    given = ["-i", str(file), "-o", str(tmp_path / "out"), "--weights", str(weights), *TINY, *manner]
    assert main(["restore", *given]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (tmp_path / "out" / "anna" / "anna_pred.nii.gz").is_file()
    if manner == ["--quiet"]:
        assert all(" WARNING " in line for line in said)
        return
    messages = [json.loads(line)["message"] for line in said]
    assert "1 of 1 cases done" in messages
    assert f"results: {tmp_path / 'out'}; next: score-fusion report {tmp_path / 'out'}" in messages
