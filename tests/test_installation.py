# SPDX-License-Identifier: Apache-2.0
"""`pip install .` as a user does it, in an environment and a folder of its own; its dependencies are borrowed from here."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts import bundle_root, bundle_version

ROOT = Path(bundle_root())


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Folder of the programs of an environment with the wheel installed."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", place, ROOT], check=True, cwd=place)
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", *place.glob("*.whl")], check=True)
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    )
    Path(site.stdout.strip(), "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return python.parent


def test_the_listed_packages_are_those_there_are():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(("score_fusion", *file.parent.relative_to(ROOT / "scripts").parts))
        for file in ROOT.glob("scripts/**/__init__.py")
    }
    wanted = {name for name in found if ".integrations" not in name} | {"score_fusion.configs", "score_fusion.models"}
    assert set(listed) == wanted


def test_pins_lie_within_the_ranges():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    ranges = {requirement.name.lower(): requirement.specifier for requirement in map(Requirement, wanted)}
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] not in "#-"]
    pins = {name.lower(): version for name, version in (line.split("==") for line in lines)}
    assert pins.keys() == ranges.keys()
    assert all(pins[name] in ranges[name] for name in pins)


def test_the_lock_pins_what_is_pinned_with_hashes_and_brings_no_cuda():
    """And no torch, which comes first."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    text = (ROOT / "requirements-lock.txt").read_text().replace("\\\n", "")
    entries = [line.partition(" --hash=sha256:") for line in map(str.strip, text.splitlines()) if line[:1] not in ("#", "")]
    locked = {canonicalize_name(Requirement(name).name): Requirement(name) for name, *_ in entries}
    assert all(len(hashes.split()[0]) == 64 for *_, hashes in entries)
    assert not any(name.startswith(("torch", "nvidia", "cuda", "triton")) for name in locked)
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    for pin in map(Requirement, pins):
        name = canonicalize_name(pin.name)
        assert name == "torch" or locked[name].specifier == pin.specifier, "make lock"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("database", ["osv", "pypi"])
def test_an_audit_that_can_ask_nobody_says_so_in_one_line_and_fails(database, tmp_path):
    tools = tmp_path / "env-tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin" / "python").symlink_to(sys.executable)
    (tools / ".run").touch()  # made after what it is made of
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}  # of `make test`
    nowhere = {**outside, "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    command = ["make", "--silent", "audit", f"VENV={tmp_path / 'env'}", f"AUDIT={database}"]
    ended = subprocess.run(command, cwd=ROOT, env=nowhere, capture_output=True, text=True, check=False)
    told = [line for line in ended.stderr.splitlines() if not line.startswith("make: ***")]
    assert ended.returncode == 2 and ended.stdout == "" and len(told) == 1
    assert told[0].startswith(f"audit: {database} cannot be asked from here (https://")
    assert told[0].endswith("; nothing was audited")


def test_the_command_works_from_another_folder_beside_a_package_named_scripts(environment, tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").write_text("raise RuntimeError('this is the user\\'s own')")
    voxels = np.zeros((8, 9, 8), dtype=np.float32)
    voxels[2:6, 2:7, 2:6] = np.random.default_rng(0).uniform(300, 900, (4, 5, 4))
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / "anna_t1.nii.gz")
    program = environment / "score-fusion"
    told = subprocess.run([program, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout == f"score-fusion {bundle_version()}\n"
    refused = subprocess.run([program, "tables", "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.stderr.startswith("error: nowhere: no such file")  # and so found the paper's numbers, which are data
    ended = subprocess.run(
        [program, "restore", "anna_t1.nii.gz", "-o", "out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert nib.load(tmp_path / "out" / "anna" / "anna_pred.nii.gz").shape == (32, 36, 32)


def test_nothing_named_scripts_comes_into_the_environment(environment, tmp_path):
    ask = "import importlib.util, score_fusion; print(importlib.util.find_spec('scripts'), score_fusion.bundle_version())"
    told = subprocess.run([environment / "python", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout == f"None {bundle_version()}\n"


def test_the_viewer_that_pages_carry_comes_along(environment, tmp_path):
    listed = "sorted(file.name for file in (files('score_fusion') / 'report/niivue').iterdir())"
    ask = f"from importlib.resources import files; print(*{listed})"
    told = subprocess.run([environment / "python", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout == "LICENSE README.md niivue.umd.js.gz\n"


def test_models_and_citation_come_along(environment, tmp_path):
    told = [subprocess.run([environment / "score-fusion", word], cwd=tmp_path, capture_output=True, text=True, check=True)
            for word in ("models", "cite")]  # fmt: skip
    assert "thick_slice" in told[0].stdout and "broken" not in told[0].stdout
    assert "eprint = {2501.07430}" in told[1].stdout
