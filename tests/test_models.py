# SPDX-License-Identifier: Apache-2.0
"""Weights by name: listed, added whole or not at all, trusted, and used with the task they were trained for."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from scripts import bundle_root
from scripts.__main__ import main
from scripts.bundle import task_configs
from scripts.errors import BadInput
from scripts.models import add, folders, known, remove, with_weights
from scripts.trust import asked_for, check_weights

ROOT = Path(bundle_root())
FACTS = {"task", "use", "seen", "data", "licence", "weak"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "score-fusion" / "models"


@pytest.fixture
def theirs(tmp_path, rng):
    """Weights of somebody, as far as a checksum can tell, and their sum."""
    content = rng.bytes(5000)
    (tmp_path / "theirs.pt").write_bytes(content)
    return tmp_path / "theirs.pt", hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(tmp_path):
    """Address of what lies in the folder."""
    handler = partial(type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}), directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_all_that_ships_is_described_and_agrees_with_configs_cards_and_what_was_seen():
    sums = json.loads((ROOT / "models" / "checksums.json").read_text())
    facts = json.loads((ROOT / "models" / "models.json").read_text())
    assert {f"{name}.pt" for name in facts} == sums.keys()
    trained = {yaml.safe_load(file.read_text())["model_name"]: task for task, file in task_configs().items()}
    for name, entry in facts.items():
        assert entry.keys() == FACTS and all(entry[key] for key in FACTS - {"task"})
        assert trained.get(name) == entry["task"]
        card = (ROOT / "docs" / "model_cards" / f"{name}.md").read_text()
        assert entry["licence"] in card
        seen = ROOT / "models" / f"{name}.seen.json"
        assert not seen.is_file() or json.loads(seen.read_text())["task"] == entry["task"]


def test_the_list_says_of_each_what_a_user_asks(home, capsys):
    assert main(["models", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed.keys() == {"any", "both", "cine", "model", "segmentation", "thick_slice", "translation", "translation_head"}
    for entry in listed.values():
        content = Path(entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert not entry["broken"]
    assert "tumour" in listed["translation"]["caveat"]
    assert listed["model"]["beside"] == ["what they saw", "ranges of integers", "interval"]
    assert listed["segmentation"]["beside"] == []
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(entry["sha256"][:12] in said and entry["use"] in said for entry in listed.values())


@pytest.mark.parametrize("fetched", [False, True])
def test_added_weights_are_listed_trusted_and_used_with_their_task(fetched, home, theirs, server, capsys):
    file, total = theirs
    source = f"{server}/{file.name}?download=1" if fetched else str(file)
    with asked_for(), pytest.raises(BadInput, match="neither ship nor"):
        check_weights(file)
    assert main(["models", "add", source, "--sha256", total.upper(), "--task", "both"]) == 0
    assert f"{home / 'theirs.pt'}: added" in capsys.readouterr().out
    assert (home / "theirs.pt").read_bytes() == file.read_bytes()
    with asked_for():
        check_weights(home / "theirs.pt")
    used = {"task": "both", "steps": 2, "ckpt_path": str(home / "theirs.pt"), "specialists": None}
    assert with_weights({"model": "theirs", "steps": 2}) == used
    assert with_weights({"model": "theirs", "task": "any"})["task"] == "any"
    assert known()["theirs"].content()["source"] == source


def test_weights_changed_after_they_were_added_are_called_broken_and_trusted_no_more(home, theirs, capsys):
    add(str(theirs[0]), theirs[1])
    (home / "theirs.pt").write_bytes(b"else")
    assert known()["theirs"].content()["broken"]
    with asked_for(), pytest.raises(BadInput, match="neither ship nor"):
        check_weights(home / "theirs.pt")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"checksum": "0" * 64}, "its sha256 is .{12}..., not 000000000000..."),
        ({"checksum": "abc"}, "is not 64 hexadecimal digits"),
        ({"source": "nowhere.pt"}, r"^nowhere.pt: cannot be had \(No such file or directory\)"),
        ({"source": "{server}/nowhere.pt"}, r"nowhere.pt: cannot be had \(.*File not found"),
        ({"source": "ftp://127.0.0.1/x.pt"}, "cannot be had"),
        ({"name": "any"}, "any: other weights have this name; give another --name"),
        ({"name": "../any"}, "cannot name a model"),
        ({"task": "t1_to_ct"}, "no task 't1_to_ct'; choose one of any"),
    ],
    ids=str,
)
def test_what_cannot_be_added_is_one_line_and_leaves_nothing(change, line, home, theirs, server):
    given = {"source": str(theirs[0]), "checksum": theirs[1], **change}
    given["source"] = given["source"].format(server=server)
    with pytest.raises(BadInput, match=line) as refused:
        add(**given)
    assert "\n" not in str(refused.value)
    assert not home.exists()


def test_a_name_keeps_its_weights_and_may_be_added_again(home, theirs, rng):
    file, total = theirs
    add(str(file), total)
    add(str(file), total)
    before = (home / "theirs.pt").read_bytes()
    file.write_bytes(content := rng.bytes(100))
    with pytest.raises(BadInput, match=r"theirs: other weights have this name; .* models remove theirs"):
        add(str(file), hashlib.sha256(content).hexdigest())
    assert (home / "theirs.pt").read_bytes() == before
    remove("theirs")
    add(str(file), hashlib.sha256(content).hexdigest())
    assert known()["theirs"].sha256 == hashlib.sha256(content).hexdigest()


def test_removed_weights_are_gone_with_what_lies_beside_them_and_trusted_no_more(home, theirs, tmp_path, capsys):
    file, total = theirs
    for name in ("mine", "other"):
        add(str(file), total, name=name)
        for ending in (".seen.json", ".int8.json", ".interval.json", ".interval.pt"):
            (home / f"{name}{ending}").write_text("{}")
    others = sorted(path.name for path in home.iterdir() if not path.name.startswith("mine"))
    assert main(["models", "remove", "mine"]) == 0
    assert capsys.readouterr().out.endswith(f"{home / 'mine.pt'}: removed\n")
    assert sorted(path.name for path in home.iterdir()) == others
    assert "mine" not in known() and known()["other"].content()["task"] == "super_resolution"
    assert main(["models", "remove", "other"]) == 0
    with asked_for(), pytest.raises(BadInput, match="neither ship nor"):
        check_weights(file)


@pytest.mark.parametrize(
    ("name", "line"),
    [("any", "any: ships, and stays"), ("unknown", "unknown: no such model was added"), ("../theirs", "no such model")],
)
def test_only_what_was_added_is_removed(name, line, home, theirs):
    add(*map(str, theirs))
    with pytest.raises(BadInput, match=f"{line}.*; you may remove theirs$"):
        remove(name)
    assert theirs[0].is_file() and "theirs" in known() and "any" in known()


def test_names_choose_what_ships_with_its_task():
    shipped = folders()[0]
    assert with_weights({"model": "thick_slice"}) == {
        "task": "super_resolution_thick_slice",
        "ckpt_path": str(shipped / "thick_slice.pt"),
        "specialists": None,
    }
    assert with_weights({"steps": 1}) == {"steps": 1}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--model", "unknown"],
            "no model 'unknown'; choose one of any, both, cine, model, thick_slice, translation, translation_head, or add it",
        ),
        (["--model", "segmentation"], "model 'segmentation': restores nothing, it is a yardstick"),
        (["--model", "any", "--weights", "mine.pt"], "--model any: --weights names others"),
    ],
    ids=str,
)
def test_a_name_that_helps_nobody_is_one_line(options, line, home, tmp_path, capsys):
    assert main(["restore", "in.nii.gz", "-o", str(tmp_path / "out"), *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and said.count("\n") == 1
