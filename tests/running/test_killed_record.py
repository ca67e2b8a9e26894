# SPDX-License-Identifier: Apache-2.0
"""The record while a run is under way, as one that is killed leaves it: of this run, with what has ended so far."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.running import Ledger
from scripts.running import record as record_module
from scripts.running.cluster import ClusterEvaluator
from scripts.running.record import RunRecord, record

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32", "--set", "backend=torch"]


@pytest.fixture
def restore(rng, tmp_path, weights):
    """A function that restores a and b, and then c, which cannot be read, into `out`."""
    (tmp_path / "in").mkdir()
    for case in "ab":
        voxels = np.pad(rng.uniform(300, 900, (3, 3, 3)), 1).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), tmp_path / "in" / f"{case}_t1.nii.gz")
    (tmp_path / "in" / "c_t1.nii.gz").write_bytes(b"nothing")

    def restore(*more):
        with pytest.raises(SystemExit):
            main(["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(weights), *TINY, *more])
        return record(tmp_path / "out")

    return restore


@pytest.fixture
def so_far(monkeypatch, tmp_path):
    """What would be known if the run were killed after its first case, second and so on."""
    seen, write = [], Ledger.write

    def written(ledger, *arguments):
        write(ledger, *arguments)
        seen.append(record(tmp_path / "out"))

    monkeypatch.setattr(Ledger, "write", written)
    return seen


def test_who_is_killed_leaves_the_record_of_his_own_run(restore, so_far):
    first = restore()
    assert so_far[0]["task"] == first["task"] and so_far[0]["sources"] == first["sources"]
    so_far.clear()
    last = restore("--steps", "2", "--samples", "2", "--force")
    assert [list(one["cases"]) for one in so_far] == [["a"], ["a", "b"], ["a", "b"]]
    assert all(one["unfinished"] and one["system"]["samples"] == 2 for one in so_far)
    assert so_far[0]["system"]["nfe"] == last["system"]["nfe"] > first["system"]["nfe"]
    assert "holds 7 bytes" in so_far[2]["failures"]["c"]
    for key in ("failures", "device", "numbers", "system", "model", "task"):
        assert so_far[2][key] == last[key]
    assert "unfinished" not in last and last["peak_memory_gb"] > 0


def test_one_that_goes_on_keeps_what_was_done_before(restore, so_far, tmp_path):
    restore()
    file = tmp_path / "out" / "ledger.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))  # as if it was killed after its first case
    so_far.clear()
    last = restore()
    assert list(so_far[0]["cases"]) == ["a", "b"] == list(last["cases"])


def test_a_result_of_an_earlier_run_is_not_shown_as_of_one_that_was_killed(restore, so_far, tmp_path, monkeypatch):
    restore()
    kept = {}

    def killed(ledger, *arguments):
        kept["run.json"] = (tmp_path / "out" / "run.json").read_bytes()  # before anything of this run is noted

    monkeypatch.setattr(Ledger, "write", killed)
    restore("--seed", "1", "--steps", "2")
    (tmp_path / "out" / "run.json").write_bytes(kept["run.json"])
    assert main(["report", str(tmp_path / "out")]) == 0
    group = (tmp_path / "out" / "report.html").read_text()
    assert group.count("is of an earlier run") == 2 and not list((tmp_path / "out").glob("*/report.html"))


def test_a_record_that_cannot_be_written_at_first_stops_nothing(restore, monkeypatch, capsys):
    written = record_module.write_json

    def full(path, content):
        if "unfinished" in content:
            raise BadInput(f"{path}: cannot be written (No space left on device); give another place to write to")
        written(path, content)

    monkeypatch.setattr(record_module, "write_json", full)
    assert list(restore()["cases"]) == ["a", "b"]
    assert "run.json: cannot be written (No space left on device)" in capsys.readouterr().out


def test_peak_memory_is_of_the_workers_that_computed(tmp_path):
    written = RunRecord(str(tmp_path / "run.json"), {})
    ledger = SimpleNamespace(record=written, identity=lambda: "x", add=lambda line: None)
    line = {"identity": "x", "device": "cpu", "numbers": "", "outcome": "failed", "error": "e"}
    evaluator = SimpleNamespace(failures={}, done=[], data_loader=SimpleNamespace(dataset=[]))
    for case, peak in (("a", 700.0), ("b", 900.0), ("c", 800.0)):  # GB, more than this machine has
        answer = SimpleNamespace(line={**line, "peak_memory_gb": peak}, warnings=[])
        ClusterEvaluator._take(evaluator, case, answer, ledger)
    assert written.content(evaluator)["peak_memory_gb"] == 900.0
    written.restart()
    assert 0 < written.content(evaluator)["peak_memory_gb"] < 700
