# SPDX-License-Identifier: Apache-2.0
"""What docs/scaling.md tells other programs to run: manifests of Kubernetes, Dask's commands, and the description of a job."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.__main__ import main
from scripts.running import commands

ROOT = Path(__file__).resolve().parents[2]
JOBS, MANIFESTS = (
    list(yaml.safe_load_all(block))
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"), re.DOTALL)
)
OLDEST, NEWEST = "1.31", "1.37"  # of Kubernetes: the policy for failed pods is stable since the first


def pods():
    """By the names of their manifests."""
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in MANIFESTS if "template" in one["spec"]}


def called():
    return [container["command"] for pod in pods().values() for container in pod["containers"]]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(version):
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    for manifest in MANIFESTS:
        kubernetes.validate(manifest, version, strict=True)
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate({**MANIFESTS[-1], "spec": {**MANIFESTS[-1]["spec"], "retries": 20}}, version, strict=True)


def test_manifests_fit_each_other():
    services = [one for one in MANIFESTS if one["kind"] == "Service"]
    deployments = [one for one in MANIFESTS if one["kind"] == "Deployment"]
    assert len(services) == 1 and len(deployments) == 2
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments]
    assert [one["spec"]["selector"]["matchLabels"] for one in deployments] == labels
    assert sum(services[0]["spec"]["selector"].items() <= one.items() for one in labels) == 1
    address = f"tcp://{services[0]['metadata']['name']}:{services[0]['spec']['ports'][0]['port']}"
    assert sum(address in command for command in called()) == 2  # of workers and of who asks
    for pod in pods().values():
        there = {volume["name"] for volume in pod.get("volumes", [])}
        assert all(mount["name"] in there for one in pod["containers"] for mount in one.get("volumeMounts", []))


def test_images_are_of_this_version():
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert {one["image"] for pod in pods().values() for one in pod["containers"]} == {f"REGISTRY/score-fusion:{version}"}


def test_a_job_is_not_repeated_for_cases_that_cannot_be_restored():
    """Exit code 2 says so. Kubernetes applies such a policy only to pods that it does not restart."""
    (job,) = [one["spec"] for one in MANIFESTS if one["kind"] == "Job"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] in [one["name"] for one in job["template"]["spec"]["containers"]]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_dask_and_our_own_command_line_know_what_is_asked_of_them(monkeypatch):
    pytest.importorskip("distributed", reason="needs distributed")
    from distributed.cli import dask_scheduler, dask_worker

    restored: list[dict[str, str]] = []
    monkeypatch.setattr(commands, "restore", lambda **options: restored.append(options))
    dask = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    for program, verb, *arguments in called():
        if program == "dask":
            assert dask[verb].make_context(verb, arguments).params
        else:
            assert program == "score-fusion" and main([verb, *arguments]) == 0
    assert [options["cluster"] for options in restored] == ["tcp://score-fusion:8786"]


def test_a_job_of_slurm_is_a_script_with_what_the_description_asks_for(tmp_path):
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    import dask

    (described,) = JOBS
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in described["jobqueue"]["slurm"].items()}):
        content = jobqueue.slurm.SLURMJob("tcp://head:8786", name="job").job_script()
    (tmp_path / "job.sh").write_text(content)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    asked = set(re.findall(r"^#SBATCH (.*)$", content, re.MULTILINE))
    assert {"-n 1", "--cpus-per-task=8", "--mem=15G", "-t 12:00:00", "--gres=gpu:1"} <= asked
