# SPDX-License-Identifier: Apache-2.0
"""A folder over several processes: the same results and the same ledger, whatever becomes of a worker."""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts import bundle_root
from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.running import cluster
from scripts.running.cluster import Cluster

pytestmark = pytest.mark.filterwarnings("ignore")
distributed = pytest.importorskip("distributed", reason="needs distributed")
dask = pytest.importorskip("dask")
ROOT = bundle_root()
TINY = ["--set", "size=tiny", "--set", "precision=float32", "--set", "backend=torch"]
KILLS = int(os.environ.get("KILLS", "1"))  # make soak: 10
CASES = 4 + 4 * KILLS


@pytest.fixture
def folder(rng, tmp_path):
    """Cases enough for a worker to be killed among them, the last of which cannot be read."""
    (tmp_path / "in").mkdir()
    for number in range(CASES):
        voxels = np.pad(rng.uniform(300, 900, (3, 3, 3)), 1).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), tmp_path / "in" / f"a{number:03}_t1.nii.gz")
    (tmp_path / "in" / "z_t1.nii.gz").write_bytes(b"nothing")
    return tmp_path


@pytest.fixture
def restore(folder, weights, monkeypatch):
    """A function that restores the folder `in` and gives the exit code."""
    monkeypatch.setattr(cluster, "is_lean", lambda: True)  # as on the command line: workers start sooner

    def restore(out, *more):
        command = ["restore", str(folder / "in"), "-o", str(folder / out), "--weights", str(weights), *TINY, *more]
        try:
            return main(command)
        except SystemExit as ended:
            return ended.code

    return restore


def worker_processes():
    """Of Dask: other tests' DataLoaders may have left some of theirs, whose deaths PyTorch would report."""
    return [child for child in multiprocessing.active_children() if "Dask Worker" in child.name]


def lines(folder):
    """Of cases."""
    return [line for line in map(json.loads, (folder / "ledger.jsonl").read_text().splitlines()) if "case" in line]


def results(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.nii.gz"))}


def when_lines(folder, count, do):
    """Do something as soon as so many cases ended."""

    def watch():
        while not (folder.is_dir() and (folder / "ledger.jsonl").is_file() and len(lines(folder)) >= count):
            time.sleep(0.02)
        do()

    threading.Thread(target=watch, daemon=True).start()


def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(folder, restore, rng, capsys):
    assert restore("alone") == 2
    for kill in range(KILLS):
        when_lines(folder / "out", 1 + 4 * kill, lambda: rng.choice(worker_processes()).kill())
    capsys.readouterr()
    assert restore("out", "--cluster", "local", "--workers", "2") == 2
    said = capsys.readouterr().out
    assert "cluster local of 2 workers, dashboard http://127.0.0.1:" in said.splitlines()[3]
    assert re.search(r"WARNING scripts.running.cluster: worker \S+ is gone; case a\d+ goes to another", said)
    assert results(folder / "out") == results(folder / "alone")
    noted = lines(folder / "out")
    done = [line["case"] for line in noted if line["outcome"] == "done"]
    assert sorted(done) == [f"a{number:03}" for number in range(CASES)]  # each once
    (failed,) = [line for line in noted if line["outcome"] == "failed"]
    assert failed["case"] == "z" and "holds 7 bytes" in failed["error"]
    assert not list((folder / "out").rglob(".*"))
    record, alone = (json.loads((folder / name / "run.json").read_text()) for name in ("out", "alone"))
    for same in ("failures", "device", "numbers", "model", "system", "files"):
        assert record[same] == alone[same]
    assert list(record["cases"]) == list(alone["cases"])
    # What a cluster did is finished for a run without one.
    assert restore("out") == 2
    assert [line["case"] for line in lines(folder / "out")][len(noted) :] == ["z"]


def test_a_worker_that_is_killed_with_an_answer_ready_loses_nothing(folder, restore, monkeypatch, capsys):
    assert restore("alone") == 2
    take, killed = cluster.Cluster._taken, []

    def taken(self, future, worker, client):
        if not killed:
            killed.append(worker)
            os.kill(client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
            while worker in client.scheduler_info()["workers"]:
                time.sleep(0.02)
        return take(self, future, worker, client)

    monkeypatch.setattr(cluster.Cluster, "_taken", taken)
    capsys.readouterr()
    assert restore("out", "--cluster", "local") == 2
    assert f"worker {killed[0]} is gone; case " in capsys.readouterr().out
    assert results(folder / "out") == results(folder / "alone")
    done = [line["case"] for line in lines(folder / "out") if line["outcome"] == "done"]
    assert sorted(done) == [f"a{number:03}" for number in range(CASES)]  # each once


def test_a_worker_that_dask_gave_up_while_a_busy_machine_brought_it_back_is_replaced(folder, restore, monkeypatch):
    monkeypatch.setitem(cluster.PATIENCE, "local", 40.0)
    monkeypatch.setattr(cluster, "REPLACED", 1.0)
    killed = []
    when_lines(folder / "out", 1, lambda: killed.extend(child.kill() for child in worker_processes()))
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}):  # 15 s, which are over at once
        assert restore("out", "--cluster", "local") == 2
    assert killed
    done = [line["case"] for line in lines(folder / "out") if line["outcome"] == "done"]
    assert sorted(done) == [f"a{number:03}" for number in range(CASES)]


@pytest.fixture
def interruptible():
    """A shell that starts tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_workers_and_leaves_a_record_of_what_is_done(folder, restore, capsys, interruptible):
    when_lines(folder / "out", 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert restore("out", "--cluster", "local") == 130
    said = capsys.readouterr()
    assert said.err == "stopped; the same command goes on\n" and "stopped: " in said.out
    done = [line["case"] for line in lines(folder / "out")]
    assert list(json.loads((folder / "out" / "run.json").read_text())["cases"]) == done and 0 < len(done) < CASES
    assert not worker_processes() and not list((folder / "out").rglob(".*"))


def test_a_case_that_takes_its_workers_along_is_given_up_and_the_others_go_on(monkeypatch):
    def restore_case(recipe, entry, lean):  # goes to workers as it stands here
        import os

        if entry["case"] == "deadly":
            os.kill(os.getpid(), 9)
        return {"case": entry["case"], "told": recipe}, []

    monkeypatch.setattr(cluster, "restore_case", restore_case)
    monkeypatch.setattr(cluster, "MOST_DEATHS", 2)
    alone = Cluster("local", 1)  # so that at times there is no worker at all
    alone.recipe = "how"
    answers = dict(alone.answers([{"case": case} for case in ("a", "deadly", "b")]))
    assert answers.pop("deadly").startswith("2 workers that were at it are gone")
    assert {case: answer.line for case, answer in answers.items()} == {case: {"case": case, "told": "how"} for case in "ab"}


@pytest.fixture
def scheduler():
    """The address of one without workers."""
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=None, silence_logs=50) as started:
        yield started.scheduler_address


def test_without_any_worker_a_run_ends_in_one_line(scheduler, restore, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "OF_OTHERS", 0.2)
    monkeypatch.setattr(cluster, "LOOK", 0.1)
    assert restore("out", "--cluster", scheduler) == 1
    fact = "no worker for 0 s; see whether any are started"
    assert capsys.readouterr().err == f"error: cluster {scheduler}: {fact}\n"


def test_a_scheduler_that_does_not_answer_is_named(restore, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "ANSWER", 0.2)
    assert restore("out", "--cluster", "tcp://127.0.0.1:9") == 1
    assert "error: --cluster tcp://127.0.0.1:9: no Dask scheduler answers there; start one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--cluster", "clouds"], "--cluster clouds: is neither local, slurm nor an address such as tcp://host:8786"),
        (["--cluster", "local", "--workers", "0"], "--workers 0: at least 1 is needed"),
        (["--cluster", "tcp://there:8786", "--workers", "2"], "--workers 2: the scheduler at tcp://there:8786 has its own"),
        (["--workers", "2"], "--workers 2: are of a cluster; add --cluster local"),
    ],
)
def test_what_is_no_cluster_is_refused_in_one_line(options, line, restore, capsys):
    assert restore("out", *options) == 1
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["distributed", "dask_jobqueue"])
def test_without_the_extra_its_name_is_told(missing, restore, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == missing else object())
    assert restore("out", "--cluster", "slurm") == 1
    assert f'{missing} is not installed; pip install "score-fusion[cluster]"' in capsys.readouterr().err


def test_a_zip_is_refused_where_other_machines_do_not_see_what_is_unpacked():
    with pytest.raises(BadInput, match="unzip it where all see it"):
        Cluster("tcp://there:8786").take_over({"dataset_dir": "scans.ZIP"})


def test_local_workers_share_gpus_as_evenly_as_they_can(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert Cluster("local").workers == 2
    given = [Cluster("local", 3)._environment(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert given == ["3", "5", "3"]


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    """A `sbatch` that keeps what it is given and starts nothing."""
    (tmp_path / "bin").mkdir()
    for name, line in (
        ("sbatch", f"cp $1 {tmp_path}/job; echo Submitted batch job 7"),
        ("scancel", f"echo $1 > {tmp_path}/gone"),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def test_jobs_are_as_the_configuration_says_and_cancelled_in_the_end(no_slurm, restore, monkeypatch, capsys):
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    assert restore("out", "--cluster", "slurm") == 1
    assert "how much cores and memory per job you want to use; in ~/.config/dask/jobqueue.yaml" in capsys.readouterr().err
    monkeypatch.setitem(cluster.PATIENCE, "slurm", 2.0)
    jobs = {"cores": 4, "memory": "8GB", "processes": 1, "walltime": "02:00:00"}
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in jobs.items()}):
        assert restore("out", "--cluster", "slurm") == 1
    assert "cluster slurm: no worker for 2 s" in capsys.readouterr().err
    job = (no_slurm / "job").read_text()
    assert "--cpus-per-task=4" in job and "-t 02:00:00" in job and "--nthreads 4" in job
    assert job.rstrip().endswith("--memory-limit 0")
    assert (no_slurm / "gone").read_text() == "7\n"


def test_a_job_that_its_time_limit_ends_is_submitted_again(folder, restore, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    jobs = tmp_path / "jobs"
    commands = {
        "sbatch": f"cp $1 {tmp_path}/$$; setsid sh {tmp_path}/$$ >> {tmp_path}/log 2>&1 & echo $! >> {jobs}; "
        "echo Submitted batch job $!",
        "scancel": "kill -KILL -- -$1",
    }
    for name, command in commands.items():  # a queue of this machine, whose jobs are process groups
        (tmp_path / name).write_text(f"#!/bin/sh\n{command}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(cluster, "REPLACED", 1.0)
    monkeypatch.setitem(cluster.PATIENCE, "slurm", 60.0)
    when_lines(folder / "out", 1, lambda: os.killpg(int(jobs.read_text()), signal.SIGKILL))
    job = {"cores": 1, "memory": "8GB", "processes": 1, "interface": "lo"}
    with dask.config.set(
        {f"jobqueue.slurm.{key}": value for key, value in job.items()} | {"distributed.deploy.lost-worker-timeout": "1ms"}
    ):
        assert restore("out", "--cluster", "slurm") == 2, (tmp_path / "log").read_text()
    assert len(jobs.read_text().split()) == 2
    done = [line["case"] for line in lines(folder / "out") if line["outcome"] == "done"]
    assert sorted(done) == [f"a{number:03}" for number in range(CASES)]


class Elsewhere:
    """A cluster whose answers are made up."""

    at_once = 1

    def __init__(self, change):
        self.change = change

    def take_over(self, config):
        real = Cluster("local")
        real.take_over(config)
        config["evaluator"]["cluster"], self.recipe = self, real.recipe

    def answers(self, entries):
        from scripts.running.notes import restore_case

        for entry in entries:
            yield entry["case"], self.change(restore_case(self.recipe, entry))


@pytest.fixture
def here(monkeypatch):
    """A function (change of every answer) that lets this process be the worker."""
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1))
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    return lambda change: monkeypatch.setattr(cluster, "Cluster", lambda where, workers: Elsewhere(change))


def test_a_worker_of_another_version_is_refused(here, restore, folder, capsys):
    here(
        lambda answer: answer._replace(
            line={**answer.line, "identity": "other", "host": "node7", "versions": {"bundle": "0.5"}}
        )
    )
    assert restore("out", "--cluster", "local") == 1
    assert "error: worker on node7: has other weights or another version (0.5) than this machine" in capsys.readouterr().err
    assert lines(folder / "out") == []


def test_a_case_that_is_given_up_fails_alone(here, restore, folder):
    here(lambda answer: "it was too much" if answer.line["case"] == "a001" else answer)
    assert restore("out", "--cluster", "local") == 2
    failures = json.loads((folder / "out" / "run.json").read_text())["failures"]
    assert failures["a001"] == "it was too much" and list(failures) == ["a001", "z"]


def test_what_workers_warn_of_and_whose_weights_they_took_is_in_the_record(here, restore, folder):
    def told(answer):
        unread = {"numbers": ""} if answer.line["outcome"] == "failed" else {}  # by a worker that had no other case
        return answer._replace(warnings=["a doubt"], line=answer.line | {"weights": "special.pt"} | unread)

    here(told)
    assert restore("out", "--cluster", "local") == 2
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["warnings"] == ["a doubt"] and record["cases"]["a000"]["weights"] == "special.pt"
    assert record["numbers"] == "float32"


def test_a_worker_that_does_not_see_the_folder_says_so(here, restore, folder, capsys):
    moved = folder / "moved"

    def lose(answer):
        (folder / "out").rename(moved)
        return answer

    here(lose)
    assert restore("out", "--cluster", "local") == 1
    assert f"{folder / 'out'} is not seen from there; write to a folder that all machines share" in capsys.readouterr().err
