# SPDX-License-Identifier: Apache-2.0
"""The command as its user sees it: in a process of its own, on a terminal and off it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import nibabel as nib
import numpy as np
import pytest

import scripts.__main__ as cli
import scripts.bids_app.__main__ as bids_app
from scripts import bundle_root, bundle_version

FIRST = 2.0  # seconds
PERIOD = "import sys; sys.argv[0] = 'scripts'; import scripts.running.progress as p; p.PERIOD = 0.2; {}"
OURS = "from scripts.__main__ import main; sys.exit(main())"


@pytest.fixture
def command(rng, weights, tmp_path):
    """Restorations of two seconds and more, of files whose header says too little."""
    voxels = np.zeros((16, 18, 16), dtype=np.float32)
    voxels[2:-2, 2:-2, 2:-2] = rng.uniform(300, 900, (12, 14, 12))
    nowhere = nib.Nifti1Image(voxels, None)
    nowhere.set_qform(np.diag([4.0, 4, 4, 1]), 0)
    nowhere.set_sform(None, 0)
    (tmp_path / "in").mkdir()
    for case in "ab":
        nib.save(nowhere, tmp_path / "in" / f"{case}_t1.nii.gz")
    tiny = ["--set", "size=tiny", "--set", "precision=float32", "--steps", "2"]
    return ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(weights), *tiny]


def on_a_terminal(command):
    """What it writes to a terminal of 100 columns, and the seconds until the first of it."""
    start = time.monotonic()
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(bundle_root())
        os.execv(sys.executable, [sys.executable, "-m", "scripts", *command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    parts, first = [], None
    while True:
        try:
            parts.append(os.read(terminal, 4096))
        except OSError:  # how Linux says that the other end is closed
            break
        if not parts[-1]:
            break
        first = first or time.monotonic() - start
    assert os.waitpid(process, 0)[1] == 0, b"".join(parts)
    return b"".join(parts).decode(), first


def test_a_bar_moves_on_a_terminal_for_the_case_and_for_the_folder(command):
    seen, first = on_a_terminal(command)
    assert first < FIRST
    assert seen.startswith(f"score-fusion {bundle_version()}: restore ")
    of_case = [int(share) for share in re.findall(r"(\d+)%\|[^|]*\| case [ab] \(\d of 2\): \d+ of \d+ slices, ", seen)]
    assert len(set(of_case)) >= 3
    assert {"0 of 2 cases", "1 of 2 cases"} <= set(re.findall(r"\| (\d of 2 cases)", seen))


@pytest.mark.parametrize(
    ("main", "words", "line"),
    [
        (cli.main, ["report", "nowhere"], "report nowhere"),
        (bids_app.main, ["nowhere", "out", "participant"], "participant nowhere -> out"),
    ],
    ids=["report", "bids_app"],
)
def test_other_commands_that_take_long_say_first_what_they_do(main, words, line, capsys):
    assert main(words) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == f"score-fusion {bundle_version()}: {line}"
    assert told.err.startswith("error: nowhere")


def test_lines_tell_it_elsewhere_and_only_real_warnings(command):
    program = PERIOD.format(OURS)
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "scripts", *command],
        cwd=bundle_root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        first = process.stdout.readline()
        assert time.monotonic() - start < FIRST
        process.kill()
    assert first == f"score-fusion {bundle_version()}: restore {command[1]} -> {command[3]}\n"
    ended = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=bundle_root(), capture_output=True, text=True, check=True
    )
    assert "super-resolution 4x4x4 of t1 with tiny.pt: 2 cases, 2 network evaluations each, on " in ended.stdout
    assert re.search(r"case a \(1 of 2\): \d+%, \d+ of 240 slices, \d+ of 2 fusions, \d+ s, \d+ s left", ended.stdout)
    assert re.search(r"case a: done in [\d.]+ s, 1 case left: about \d+ s", ended.stdout)
    both = ended.stdout + ended.stderr
    assert "%|" not in both  # no bar
    assert "advisories" not in both and "resuming" not in both
    assert "WARNING" in ended.stdout and "left and right are unknown" in ended.stdout


def test_until_the_first_call_of_a_network_nothing_is_imported_that_is_not_needed(command):
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.start", *command],
        cwd=bundle_root(),
        capture_output=True,
        text=True,
        check=True,
    )
    line = ended.stdout.splitlines()[-1]
    assert line.startswith("first call of a network after ")
    loaded = set(line.split())
    assert {"torch", "monai"} <= loaded
    assert not loaded & {"highdicom", "itk", "matplotlib", "nilearn", "pandas", "skimage", "sklearn", "tensorboard"}


@pytest.mark.parametrize(
    "options",
    [
        {"overlays": ["mine.yaml"]},
        {"task": "mine.yaml"},
        {"settings": ["postprocessing={_target_: KeepLargestConnectedComponentd}"]},
    ],
    ids=str,
)
def test_a_component_of_somebody_else_finds_all_of_monai(options):
    from scripts.running.lean import all_ours

    assert all_ours(task="both", overlays=["sampler_fast"], settings=["steps=2"])
    assert not all_ours(**options)


def test_what_is_hidden_from_monai_is_there_for_us():
    ours = (
        "from scripts.running.lean import import_monai; import_monai(); import scipy.ndimage, skimage.metrics, matplotlib;"
        "from scripts.evaluation.metrics import ssim; print(scipy.ndimage.label);"
        "import sys; assert 'sympy' not in sys.modules;"
        "from torch.distributed.optim import ZeroRedundancyOptimizer as theirs; assert theirs.__module__.startswith('torch.')"
    )
    subprocess.run([sys.executable, "-c", ours], cwd=bundle_root(), check=True, capture_output=True)
