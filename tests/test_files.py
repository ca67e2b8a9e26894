# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys
import threading

import pytest

from scripts import bundle_root
from scripts.errors import BadInput
from scripts.files import clean_leftovers, read_json, whole, write_json, write_text

SLOW_WRITER = """
import sys, time
from pathlib import Path
from scripts.files import whole
with whole(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.json", "older")
    with pytest.raises(RuntimeError), whole(tmp_path / "a.json") as part:
        part.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "older"


def test_a_kill_while_writing_leaves_the_older_file(tmp_path):
    path = tmp_path / "done.json"
    write_json(path, {"steps": 1})
    writer = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, path], cwd=bundle_root(), stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert read_json(path) == {"steps": 1}


def test_what_a_kill_left_goes_and_an_older_file_takes_its_name_again(tmp_path):
    places = [".0123456789ab.new.a.pt", ".0123456789ab.old.a.pt", ".fedcba987654.new.b.pt", ".hidden", ".old.a.pt"]
    for place in places:
        (tmp_path / place).write_text(place)
    clean_leftovers(tmp_path, "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.pt", *places[2:]])
    assert (tmp_path / "a.pt").read_text() == places[1]
    (tmp_path / places[1]).touch()
    clean_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.pt", *places[3:]])


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path):
    for content in ("older", "newer"):
        with whole(tmp_path / "series") as part:
            part.mkdir()
            (part / content).touch()
    assert [path.name for path in (tmp_path / "series").iterdir()] == ["newer"]
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_what_is_written_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    events, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    write_text(tmp_path / "a", "text")
    assert events.index("fsync") < (events.index("replace") if "replace" in events else len(events))
    assert events.count("fsync") == 2  # the file, then its folder


def test_writers_of_one_file_do_not_meet(tmp_path):
    texts = [str(number) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "a", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_one_line_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file/a\.txt: cannot be written \(.*\); give --output another name$"):
        write_text(tmp_path / "file" / "a.txt", "text", "give --output another name")


def test_a_name_of_250_letters_is_written(tmp_path):
    write_text(tmp_path / ("a" * 250), "text")
    assert (tmp_path / ("a" * 250)).read_text() == "text"


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_what_is_no_json_object_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadInput, match=r"a\.json: (cannot be read as JSON|holds no JSON object).*; remove it and run again"):
        read_json(tmp_path / "a.json")
