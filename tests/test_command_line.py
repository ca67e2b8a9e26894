# SPDX-License-Identifier: Apache-2.0
import argparse
import inspect
import os
import resource
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from surroundings import needs

import scripts.demos.demo
import scripts.running.commands
from scripts import bundle_root, bundle_version
from scripts.__main__ import COMMANDS, TRUST, add_argument, main
from scripts.networks.weights import write


def seconds_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("asked", ["--help", "models"])
def test_help_and_models_are_there_at_once_and_import_nothing_heavy(asked):
    before = seconds_of_children()
    command = [sys.executable, "-X", "importtime", "-m", "scripts", asked]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTEST"))}
    ended = subprocess.run(command, cwd=bundle_root(), env=environment, capture_output=True, text=True, check=True)
    assert seconds_of_children() - before < 0.5  # of computing: a busy machine is no reason to fail
    assert all(word in ended.stdout for word in (["demo", "export"] if asked == "--help" else ["thick_slice", "licence"]))
    imported = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "monai", "numpy", "nibabel", "yaml", "matplotlib"}


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["export", "only.pt"]], ids=str)
def test_an_incomplete_command_shows_its_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m scripts" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["a.nii.gz"], ["-i", "a.nii.gz"], ["--input", "a.nii.gz"]], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_the_source_of_restore_may_be_named_and_stand_anywhere(given, first, monkeypatch):
    calls = []
    monkeypatch.setattr(scripts.running.commands, "restore", lambda **options: calls.append(options))
    rest = ["-o", "out", "--steps", "2", "--resample"]
    assert main(["restore", *(given + rest if first else rest + given)]) == 0
    assert calls == [{"source": "a.nii.gz", "output": "out", "steps": 2, "resample": True}]


@pytest.mark.parametrize("given", [[], ["a.nii.gz", "-i", "b.nii.gz"]], ids=str)
def test_no_source_or_two_show_the_usage(given, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["restore", *given, "-o", "out"])
    assert ended.value.code == 2
    assert "-i/--input" in capsys.readouterr().err.splitlines()[-1]


@needs("argcomplete", find_spec("argcomplete") is not None)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("score-fusion rest", {"restore"}),
        ("score-fusion restore --model th", {"thick_slice"}),
        ("score-fusion evaluate x --task translation_", {"translation_head"}),
        ("score-fusion restore --json", {"--json-log"}),
    ],
)
def test_a_shell_is_offered_commands_options_and_names(typed, offered, tmp_path):
    told = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "told"), "COMP_LINE": typed}
    environment = {**os.environ, **told, "COMP_POINT": str(len(typed)), "_ARGCOMPLETE_IFS": "|"}
    command = [sys.executable, "-X", "importtime", "-m", "scripts"]
    ended = subprocess.run(command, cwd=bundle_root(), env=environment, capture_output=True, text=True, check=False)
    assert {word.strip() for word in (tmp_path / "told").read_text().split("|")} == offered
    assert not [line for line in ended.stderr.splitlines() if line.split("|")[-1].strip() == "torch"]


def test_export_writes_the_averaged_weights_in_half_precision(tmp_path, capsys):
    weights = {"a": torch.ones(2, 3), "b": torch.full((1,), 0.5)}
    write({"objects": {"network": {}, "ema": weights}}, tmp_path / "latest.pt")
    assert main(["export", str(tmp_path / "latest.pt"), str(tmp_path / "new" / "model.pt")]) == 0
    written = torch.load(tmp_path / "new" / "model.pt", weights_only=True)
    assert written.keys() == weights.keys()
    assert all(value.dtype == torch.float16 and torch.equal(value.float(), weights[key]) for key, value in written.items())


@pytest.mark.parametrize("content", [None, b"else", {"a": torch.ones(1)}], ids=["missing", "not weights", "no checkpoint"])
def test_an_export_of_something_else_is_refused_in_one_line(content, tmp_path, capsys):
    if isinstance(content, bytes):
        (tmp_path / "latest.pt").write_bytes(content)
    elif content:
        write(content, tmp_path / "latest.pt")
    assert main(["export", str(tmp_path / "latest.pt"), str(tmp_path / "model.pt")]) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: {tmp_path / 'latest.pt'}: ")
    assert line.count("\n") == 1
    assert not (tmp_path / "model.pt").exists()


def test_an_error_that_is_not_the_users_keeps_its_traceback(monkeypatch):
    def fail(output):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(scripts.demos.demo, "demo", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main(["demo"])


@pytest.mark.parametrize(("asked", "given"), [([], {}), (["--head", "a.nii.gz"], {"head": "a.nii.gz"})], ids=str)
def test_what_is_not_given_is_left_to_the_commands_own_defaults(asked, given, monkeypatch):
    calls = []
    monkeypatch.setattr(scripts.demos.demo, "demo", lambda **options: calls.append(options))
    assert main(["demo", "--output", "there", *asked]) == 0
    assert calls == [{"output": "there", **given}]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_a_parameter_of_the_function_behind_its_command(name):
    module, _, function = COMMANDS[name].target.partition(":")
    parameters = inspect.signature(getattr(import_module(f"scripts.{module}"), function)).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    parser = argparse.ArgumentParser()
    actions = [add_argument(parser, *names, **options) for names, options in COMMANDS[name].arguments]
    of_all = {names[0].lstrip("-") for names, _ in TRUST}  # which main itself takes
    assert open_ended or not {action.dest for action in actions} - set(parameters) - of_all
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty and parameter.kind < 4}
    required -= {key for key, parameter in parameters.items() if parameter.kind is parameter.VAR_KEYWORD}
    told = {action.dest for action in actions if action.required or action.default is not None}
    told |= {names[0] for names, options in COMMANDS[name].arguments if "also" in options}  # one or the other is required
    assert required <= told


def test_the_version_is_that_of_the_metadata(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"score-fusion {bundle_version()}\n"


@needs("Linux", sys.platform == "linux")  # it asks the OpenMP library
@pytest.mark.parametrize(("own", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_that_wait_leave_their_core_to_others_unless_told_otherwise(own, policy):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | {
        "OMP_DISPLAY_ENV": "true",
        **own,
    }
    command = [sys.executable, "-c", "import sys, scripts.__main__ as m; sys.exit(m.main(['export', 'nowhere', 'nothing']))"]
    done = subprocess.run(command, env=environment, cwd=bundle_root(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr


@pytest.mark.parametrize("text", ["{", "3", "[1]"])
def test_options_that_are_no_mapping_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "both", "there", "--output", "out", "--options", text])
    assert "argument --options: invalid" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    ours = "import sys; from scripts.errors import exit_code; sys.exit(exit_code(lambda: print('x' * 10**6)))"
    ended = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "{ours}" | true'],
        cwd=bundle_root(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_was_unpacked_is_gone_after_sigterm(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a_t1.nii.gz", b"x")
    ours = (
        "import sys, time, pathlib; from scripts.data.archive import unzip; from scripts.errors import exit_code;"
        "exit_code(lambda: (print(unzip(pathlib.Path(sys.argv[1])), flush=True), time.sleep(60)))"
    )
    command = [sys.executable, "-c", ours, tmp_path / "a.zip"]
    with subprocess.Popen(command, cwd=bundle_root(), stdout=subprocess.PIPE, text=True) as process:
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.terminate()
        assert process.wait(30) == 143
    assert not folder.parent.exists()


def test_zips_that_are_broken_in_any_way_are_named_in_one_line(tmp_path, rng, capsys):
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a_t1.nii.gz", rng.integers(0, 9, 3000, dtype="uint8").tobytes())
    whole = (tmp_path / "whole.zip").read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / f"{place}.zip").write_bytes(damaged[: len(whole) - place % 2])
        main(["doctor", str(tmp_path / f"{place}.zip")])
        assert capsys.readouterr().err.count("\n") == 1
