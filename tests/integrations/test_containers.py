# SPDX-License-Identifier: Apache-2.0
"""The recipes of images, where no engine runs: linted, compared, and their steps carried out in a bare virtual environment."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from surroundings import needs

from scripts import bundle_root, bundle_version

ROOT = Path(bundle_root())
PLACE = "/opt/score-fusion"
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
installs = needs("INSTALL_IMAGE=1, and minutes (make test-integrations)", os.environ.get("INSTALL_IMAGE"))


def instructions(stage):
    """(word, rest) of a stage of the Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines() if not line.startswith("#")]
    stages = "\n".join(lines).split("FROM ")[1:]
    return [tuple(line.split(" ", 1)) for line in stages[stage].splitlines()[1:] if line]


def rests(stage, word):
    return [rest for name, rest in instructions(stage) if name == word]


def sections(text):
    """Lines of every section of an Apptainer recipe, by name."""
    parts = re.split(r"^%(.+)$", text, flags=re.MULTILINE)
    bodies = [[line.strip() for line in body.splitlines() if line.strip()] for body in parts[2::2]]
    return dict(zip(parts[1::2], bodies, strict=True))


@needs("hadolint", HADOLINT)
def test_the_linter_of_dockerfiles_finds_nothing_and_would():
    def lint(text):
        return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True)

    recipe = (ROOT / "Dockerfile").read_text()
    assert lint(recipe).stdout == ""
    assert "DL3002" in lint(recipe.replace("USER 1000", "USER root")).stdout


def test_the_image_runs_as_nobody_in_particular_and_starts_the_command():
    assert rests(1, "USER") == ["1000"]
    assert [json.loads(rest) for rest in rests(1, "ENTRYPOINT")] == [["score-fusion"]]
    assert f"--from=build {PLACE} {PLACE}" in rests(1, "COPY")


def test_both_recipes_take_the_same_steps_and_files():
    recipe = sections((ROOT / "apptainer.def").read_text())
    steps = [line for line in recipe["post"] if line.startswith(("pip ", "python "))]
    assert steps == rests(0, "RUN")
    copied = [name for rest in rests(0, "COPY") for name in rest.split()[:-1]]
    assert {line.split()[0] for line in recipe["files"]} == set(copied)
    assert all(line == f"{name} /src/{name}" for line, name in zip(recipe["files"], copied, strict=True))
    first, second = (ROOT / "Dockerfile").read_text(), (ROOT / "apptainer.def").read_text()
    (base,) = set(re.findall(r"^FROM (\S+)", first, re.MULTILINE))
    assert f"From: {base}\n" in second


def test_what_is_kept_from_the_builder_is_what_the_recipe_does_not_copy():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(kept) == sorted(name for rest in rests(0, "COPY") for name in rest.split()[:-1])


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Folder of the programs that the steps of the recipe leave, taken with nothing but what it copies."""
    place = tmp_path_factory.mktemp("image")
    source, target, tools = (place / name for name in ("src", "opt", "tools"))
    for folder in (source, tools):
        folder.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys._base_executable} "$@"\n')
    (tools / "python").chmod(0o755)
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))}
    surroundings["PATH"] = f"{target}/bin:{tools}:/usr/bin:/bin"
    surroundings |= {"TORCH_INDEX": os.environ.get("TORCH_INDEX", "https://pypi.org/simple"), "EXTRAS": ""}
    for word, rest in instructions(0):
        if word == "COPY":
            *names, to = rest.split()
            for name in names:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, source / name if len(names) > 1 else source / to)
        elif word == "RUN":
            step = rest.replace(PLACE, str(target))
            ended = subprocess.run(["sh", "-euc", step], cwd=source, env=surroundings, capture_output=True, text=True)
            assert ended.returncode == 0, f"{step}\n{ended.stdout}{ended.stderr}"
    shutil.rmtree(source)
    yield target / "bin"
    shutil.rmtree(target)  # 2 GB, of which pytest would keep three


def ask(programs, name, *arguments, cwd):
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run([programs / name, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=True)


@installs
def test_the_steps_leave_both_commands_all_weights_and_no_conflict(programs, tmp_path):
    assert ask(programs, "score-fusion", "--version", cwd=tmp_path).stdout == f"score-fusion {bundle_version()}\n"
    assert ask(programs, "score-fusion-bids", "--version", cwd=tmp_path).stdout == f"score-fusion {bundle_version()}\n"
    listed = json.loads(ask(programs, "score-fusion", "models", "--json", cwd=tmp_path).stdout)
    assert {model["name"] for model in listed} >= {"any", "model", "thick_slice"}
    assert not any(model["broken"] for model in listed)
    assert ask(programs, "python", "-m", "pip", "check", cwd=tmp_path).stdout == "No broken requirements found.\n"


@installs
def test_what_they_leave_restores_a_scan(programs, tmp_path):
    voxels = np.zeros((8, 9, 8), dtype=np.float32)
    voxels[2:6, 2:7, 2:6] = np.random.default_rng(0).uniform(300, 900, (4, 5, 4))
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / "anna_t1.nii.gz")
    ask(programs, "score-fusion", "restore", "anna_t1.nii.gz", "-o", "out", cwd=tmp_path)
    restored = nib.load(tmp_path / "out" / "anna" / "anna_pred.nii.gz").get_fdata()
    blocks = restored.reshape(8, 4, 9, 4, 8, 4).mean((1, 3, 5))
    np.testing.assert_allclose(blocks, voxels, atol=1e-3 * voxels.max())  # float32, summed over 64 voxels
