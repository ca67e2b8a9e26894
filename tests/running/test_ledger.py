# SPDX-License-Identifier: Apache-2.0
"""Runs that are stopped, and go on."""

import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from scripts import bundle_root
from scripts.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore")
KILLS = int(os.environ.get("KILLS", "1"))  # make soak: 50
TINY = ["--set", "size=tiny", "--set", "precision=float32", "--set", "backend=torch"]
TWO_STEPS = ["--steps", "2"]


@pytest.fixture
def folder(rng, tmp_path):
    """Four cases, of which the last cannot be read."""
    for case in "abc":
        voxels = np.pad(rng.uniform(300, 900, (3, 3, 3)), 1).astype(np.float32)
        save(voxels, tmp_path / "in" / f"{case}_t1.nii.gz")
    (tmp_path / "in" / "d_t1.nii.gz").write_bytes(b"nothing")
    return tmp_path


def save(voxels, path):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), path)


def restore(folder, weights, *more):
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(folder / "in"), "-o", str(folder / "out"), "--weights", str(weights), *TINY, *more])
    return ended.value.code


def lines(folder):
    """Of cases, but for those that were cut off."""
    text = (folder / "out" / "ledger.jsonl").read_text(errors="replace").splitlines()
    return [line for line in map(json.loads, [one for one in text if one.endswith("}")]) if "case" in line]


def results(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "out").rglob("*.nii.gz"))}


def test_a_line_says_what_became_of_a_case_and_how(folder, weights):
    assert restore(folder, weights) == 2
    *done, failed = lines(folder)
    assert [(line["case"], line["outcome"]) for line in done] == [(case, "done") for case in "abc"]
    assert (failed["case"], failed["outcome"]) == ("d", "failed") and "holds 7 bytes" in failed["error"]
    size = (folder / "out" / "a" / "a_pred.nii.gz").stat().st_size
    assert done[0]["files"] == {"a/a_pred.nii.gz": size} and len(done[0]["input"]) == 64
    assert {"time", "seconds", "device", "numbers", "versions", "model", "peak_memory_gb", "doubts"} <= done[0].keys()
    assert (done[0]["system"]["nfe"], done[0]["system"]["seed"]) == (1, 0)


def test_what_is_finished_and_unchanged_is_not_computed_again(folder, weights, capsys, rng):
    restore(folder, weights)
    before = results(folder)
    (folder / "out" / "b" / "b_pred.nii.gz").unlink()  # somebody removed a result
    other = np.pad(np.full((3, 3, 3), 500, dtype=np.float32), 1)
    save(other, folder / "in" / "c_t1.nii.gz")  # and another scan came in place of one
    capsys.readouterr()
    assert restore(folder, weights) == 2
    said = capsys.readouterr().out
    assert "1 case finished before, of the same input and options; --force computes them anew: a" in said
    assert [line["case"] for line in lines(folder)[4:]] == ["b", "c", "d"]
    after = results(folder)
    assert after["b_pred.nii.gz"] == before["b_pred.nii.gz"] and after["c_pred.nii.gz"] != before["c_pred.nii.gz"]
    assert list(json.loads((folder / "out" / "run.json").read_text())["cases"]) == ["a", "b", "c"]


@pytest.mark.parametrize("change", [["--seed", "1", "--steps", "2"], ["--force"]], ids=["options", "force"])
def test_other_options_compute_all_anew(folder, weights, change):
    restore(folder, weights)
    restore(folder, weights, *change)
    assert [line["case"] for line in lines(folder)] == [*"abcd", *"abcd"]


def test_a_run_with_force_that_was_stopped_goes_on(folder, weights):
    restore(folder, weights)
    restore(folder, weights, "--force")
    file = folder / "out" / "ledger.jsonl"
    text = file.read_text().splitlines(keepends=True)
    file.write_text("".join(text[:-3]))  # as if it was stopped after its second case
    restore(folder, weights, "--force")
    assert [line["case"] for line in lines(folder)] == [*"abcd", *"ab", *"cd"]


def test_a_changed_sidecar_is_another_input(folder, weights):
    restore(folder, weights)
    (folder / "in" / "b_t1.json").write_text('{"SliceThickness": 3}')
    restore(folder, weights)
    assert [line["case"] for line in lines(folder)] == [*"abcd", *"bd"]


def test_a_ledger_that_cannot_be_written_stops_nothing(folder, weights, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scripts.running.ledger.os.fsync", full)
    assert restore(folder, weights) == 2
    assert len(results(folder)) == 3 and len(json.loads((folder / "out" / "run.json").read_text())["cases"]) == 3
    assert capsys.readouterr().out.count("cannot be written (No space left on device)") == 1


def test_an_older_result_whose_folder_was_being_replaced_takes_its_name_again(folder, weights):
    restore(folder, weights)
    case = folder / "out" / "a"
    (case / "pred").mkdir()
    (case / "pred" / "1.dcm").write_bytes(b"image")
    (case / "pred").rename(case / ".0123456789ab.old.pred")
    restore(folder, weights)
    assert (case / "pred" / "1.dcm").read_bytes() == b"image" and not list(case.glob(".*"))


def test_a_folder_that_is_finished_is_done_at_once(folder, weights, capsys):
    (folder / "in" / "d_t1.nii.gz").unlink()
    command = ["restore", str(folder / "in"), "-o", str(folder / "out"), "--weights", str(weights), *TINY]
    assert main(command) == 0
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3 cases finished before" in said and "3 of 3 cases done, 3 of them before" in said
    assert list(json.loads((folder / "out" / "run.json").read_text())["cases"]) == ["a", "b", "c"]


def test_a_line_that_was_cut_off_and_leftovers_do_no_harm(folder, weights):
    restore(folder, weights)
    before = results(folder)
    text = (folder / "out" / "ledger.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line).get("case") for line in text[:4]] == [None, "a", "b", "c"]
    (folder / "out" / "ledger.jsonl").write_bytes("".join(text[:3]).encode() + text[3][:40].encode() + b"\xc3")
    (folder / "out" / "c" / ".0123456789ab.new.c_pred.nii.gz").write_bytes(b"half")
    restore(folder, weights)
    cases = [line["case"] for line in lines(folder)]
    assert cases == ["a", "b", "c", "d"]
    assert results(folder) == before
    assert not list((folder / "out").rglob(".*"))


def test_a_second_run_into_a_folder_is_refused(folder, weights, capsys):
    from scripts.running import Ledger, RunRecord

    with Ledger(RunRecord(str(folder / "out" / "run.json"), {})):
        assert main(["restore", str(folder / "in"), "-o", str(folder / "out"), "--weights", str(weights), *TINY]) == 1
    assert "another run writes there; wait for it, or give another output_dir" in capsys.readouterr().err


def started(folder, weights):
    command = [sys.executable, "-m", "scripts", "restore", str(folder / "in"), "-o", str(folder / "out")]
    options = ["--weights", str(weights), *TINY, *TWO_STEPS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    log = (folder / "log").open("w")

    def heeding() -> None:  # shells start what runs in the background deaf to Ctrl-C, and their children with it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command + options, cwd=bundle_root(), stdout=log, stderr=pipe, text=True, env=environment, preexec_fn=heeding
    )


def until_lines(folder, process, count=1):
    """Until so many cases ended."""
    file = folder / "out" / "ledger.jsonl"
    while process.poll() is None and not (file.is_file() and file.read_bytes().count(b'"outcome"') >= count):
        time.sleep(0.01)


# Python ends itself by the signal where the interrupt went through an `eval`, as of a config; a shell says 130 for either.
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_who_is_stopped_says_so_in_a_line_and_leaves_a_record(folder, weights, sent, code, rng):
    for number in range(20):  # enough not to be over before
        voxels = np.pad(rng.uniform(300, 900, (14, 14, 14)), 1).astype(np.float32)
        save(voxels, folder / "in" / f"x{number:02}_t1.nii.gz")
    process = started(folder, weights)
    until_lines(folder, process)
    process.send_signal(sent)
    err = process.communicate(timeout=300)[1]
    out = (folder / "log").read_text()
    assert process.returncode == code, err
    assert "stopped: " in out and "Traceback" not in out + err
    assert len(err.splitlines()) <= 2
    record = json.loads((folder / "out" / "run.json").read_text())
    done = [line["case"] for line in lines(folder) if line["outcome"] == "done"]
    assert list(record["cases"]) == done and 0 < len(done) < 23


def test_a_run_that_is_killed_goes_on_and_ends_as_if_undisturbed(folder, weights, rng):
    """At random moments of computing, writing and noting a case."""
    for number in range(6 * KILLS):
        save(np.pad(rng.uniform(300, 900, (4, 4, 4)), 1).astype(np.float32), folder / "in" / f"x{number:03}_t1.nii.gz")
    assert restore(folder, weights, *TWO_STEPS) == 2
    undisturbed = results(folder)
    (folder / "out").rename(folder / "undisturbed")
    for _ in range(KILLS):
        before = len(lines(folder)) if (folder / "out").exists() else 0
        process = started(folder, weights)
        until_lines(folder, process, before + 1)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL  # before its end
    assert restore(folder, weights, *TWO_STEPS) == 2
    done = [line["case"] for line in lines(folder) if line["outcome"] == "done"]
    assert sorted(done) == sorted(["a", "b", "c", *(f"x{number:03}" for number in range(6 * KILLS))])  # each once
    assert results(folder) == undisturbed
    assert not list((folder / "out").rglob(".*"))
