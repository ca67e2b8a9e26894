# SPDX-License-Identifier: Apache-2.0
"""Files made to harm end our commands in one line; nothing in them runs, and nothing is written."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hostile
import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.files import sha256
from scripts.networks import ScoreFusion
from scripts.networks.engine import has_openvino
from scripts.networks.weights import averaged, export_weights, weights_of, write
from scripts.training import LatestCheckpoint
from scripts.trust import asked_for

pytestmark = pytest.mark.filterwarnings("ignore")
NEEDS_OPENVINO = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
ROOT = Path(__file__).parents[1]
TINY = ["--set", "size=tiny", "--set", "precision=float32"]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where files for a moment go."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def scan(rng, tmp_path):
    voxels = np.zeros((9, 8, 10), dtype=np.float32)
    voxels[2:7, 2:6, 2:8] = rng.uniform(300, 900, (5, 4, 6))
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1])), tmp_path / "anna_t1.nii.gz")
    return tmp_path / "anna_t1.nii.gz"


@pytest.fixture
def own(tmp_path, awaken):
    """Weights that were made here."""
    write(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "own.pt")
    return tmp_path / "own.pt"


@pytest.fixture
def corpus(tmp_path):
    """A function that makes files of a kind; and the file that would be there if one of them ran."""
    (tmp_path / "corpus").mkdir()
    return lambda kind, *more: getattr(hostile, kind)(tmp_path / "corpus", *more, tmp_path / "canary"), tmp_path / "canary"


@pytest.fixture
def refused(tmp_path, temporary, capsys):
    """A function that runs a command and returns the one line with which it ends, after it has written nothing."""

    def refused(*command):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert main([*map(str, command)]) == 1, command
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before, command
        assert not (tmp_path / "out").exists()
        assert not any(path.is_file() for path in temporary.rglob("*")), command
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return refused


def test_weights_made_to_harm_are_refused_even_where_their_file_is_trusted(corpus, refused, scan, tmp_path):
    make, canary = corpus
    for name, file in make("weights").items():
        line = refused("restore", scan, "-o", tmp_path / "out", "--weights", file, "--trust", file, *TINY)
        assert str(file) in line, name
        assert "neither ship" not in line, name
        assert ("is packed" in line) == (name == "packed"), line  # before anything is unpacked
    assert not canary.exists()


def test_no_other_way_to_read_weights_is_open_to_them(corpus, tmp_path):
    make, canary = corpus
    for name, file in make("weights").items():
        if name not in ("foreign keys", "complex", "integers"):  # which are weights, of another network
            ways = [weights_of, averaged, lambda file: export_weights(str(file), str(tmp_path / "exported.pt"))]
            resume = LatestCheckpoint(str(file), {"network": torch.nn.ReLU()})
            for way in (*ways, lambda _, resume=resume: resume.load(Engine(lambda *_: None))):
                with pytest.raises(BadInput, match=rf"{file.name}: .") as raised:
                    way(file)
                assert "\n" not in str(raised.value), name
    assert not canary.exists()
    assert not (tmp_path / "exported.pt").exists()


def test_zips_made_to_harm_are_refused(corpus, refused, scan, own, tmp_path, monkeypatch):
    make, canary = corpus
    monkeypatch.setattr("scripts.data.archive.MOST_MEMBERS", hostile.MANY - 1)  # to write 200,000 takes seconds
    for name, file in make("zips", scan).items():
        line = refused("restore", file, "-o", tmp_path / "out", "--weights", own, *TINY)
        assert file.stem in line, name
    assert not canary.exists()


def test_configs_made_to_harm_are_refused(corpus, refused, scan, own, tmp_path):
    make, canary = corpus
    for name, file in make("configs").items():
        line = refused("restore", scan, "-o", tmp_path / "out", "--weights", own, *TINY, "--overlays", file)
        assert file.name in line, name
    assert not canary.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--set", "sampler={_target_: os.system, command: touch CANARY}"],
        ["--set", "sampler#_target_=os.system"],
        ["--set", "title=\"$open('CANARY', 'w')\""],
        ["--set", 'planes=[\'$open("CANARY", "w")\']'],
        ["--device", "$__import__('os').system('touch CANARY')"],
        ["--contrast", "$open('CANARY', 'w')"],
        ["--weights", "$open('CANARY', 'w')"],
        ["--bids-filter", "{\"acq\": \"$open('CANARY', 'w')\"}"],
        ["--set", "steps=@samples", "--set", "samples=@steps"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_options_that_are_code_are_refused(options, refused, scan, own, tmp_path):
    given = [option.replace("CANARY", str(tmp_path / "canary")) for option in options]
    refused("restore", scan, "-o", tmp_path / "out", "--weights", own, *TINY, *given)
    assert not (tmp_path / "canary").exists()


def test_a_config_that_is_named_may_hold_code(scan, own, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"title: \"$open('{tmp_path / 'ran'}', 'w') and 'mine'\"\n")
    mine = ["--overlays", str(tmp_path / "mine.yaml"), "--trust", str(tmp_path / "mine.yaml")]
    assert main(["restore", str(scan), "-o", str(tmp_path / "out"), "--weights", str(own), *TINY, *mine]) == 0
    assert (tmp_path / "ran").exists()


def test_weights_of_others_are_taken_by_name_or_sum_alone(own, refused, scan, tmp_path):
    other = tmp_path / "downloaded" / "model.pt"
    other.parent.mkdir()
    state = torch.load(own, weights_only=True)
    torch.save({key: value.clone() for key, value in state.items()}, other)
    (other.with_name("checksums.json")).write_text(f'{{"model.pt": "{sha256(other)}"}}')  # whoever sent them lists them, too
    command = ["restore", scan, "-o", tmp_path / "out", "--weights", other, *TINY]
    assert f"{other}: these weights neither ship nor were trained by you here" in refused(*command)
    assert "neither ship" in refused(*command, "--trust", own)
    assert "neither ship" in refused(*command, "--sha256", sha256(own))
    assert main([*map(str, command), "--trust", str(other)]) == 0
    assert main([*map(str, command), "--force", "--sha256", sha256(other).upper()]) == 0


def test_ones_own_weights_are_known_wherever_they_go_and_not_once_they_are_changed(own, tmp_path):
    moved = own.rename(tmp_path / "moved.pt")
    with asked_for():
        weights_of(moved)
        content = bytearray(moved.read_bytes())
        content[len(content) // 2] ^= 1
        moved.write_bytes(content)
        with pytest.raises(BadInput, match=r"moved\.pt: these weights neither ship"):
            weights_of(moved)
    weights_of(moved)  # Python and monai.bundle ask nobody


def test_a_checkpoint_is_known_if_its_process_was_killed_before_it_took_its_name(own, tmp_path, monkeypatch):
    before = own.read_bytes()
    write({"a": torch.ones(1)}, own)
    own.write_bytes(before)  # the newer one never came
    with asked_for():
        weights_of(own)


def test_without_a_place_to_remember_weights_are_written_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    write({"a": torch.ones(1)}, tmp_path / "weights.pt")
    with asked_for(), pytest.raises(BadInput, match="neither ship"):
        weights_of(tmp_path / "weights.pt")
    with asked_for([tmp_path / "weights.pt"]):
        assert weights_of(tmp_path / "weights.pt").keys() == {"a"}


WATCHED = """
import os, sys
seen = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # of processes that it forks, too

def hook(event, arguments):
    # urllib3, when it is imported, sees whether a socket of this machine's own can be bound; that asks nobody.
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.bind") or event.startswith("os.fork"):
        os.write(seen, f"{event} {arguments}\\n".encode())

sys.addaudithook(hook)
from scripts.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=NEEDS_OPENVINO)])
def test_a_restoration_asks_no_network_and_leaves_nothing_in_the_home_folder(scan, own, tmp_path, backend):
    """As somebody's who has never run it: a package reports its first use, and numbers its users."""
    (home := tmp_path / "home").mkdir()
    command = ["restore", scan, "-o", tmp_path / "out", "--weights", own, "--trust", own, *TINY, "--set", f"backend={backend}"]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run(
        [sys.executable, "-c", WATCHED, tmp_path / "seen", *command],
        cwd=ROOT, env=environment, check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    assert (tmp_path / "out" / "anna" / "anna_pred.nii.gz").is_file()
    assert (tmp_path / "seen").read_text() == ""
    assert list(home.iterdir()) == []
