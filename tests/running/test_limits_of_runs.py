# SPDX-License-Identifier: Apache-2.0
"""What was measured to be wrong with weights reaches whoever restores with them."""

import json

import pytest

from scripts import restore
from scripts.__main__ import main
from scripts.data import Provenance
from scripts.errors import BadInput
from scripts.files import sha256, write_json
from scripts.measurement import Task
from scripts.report import report

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = ["--set", "size=tiny", "--set", "precision=float32"]
CAVEAT = "tiny.pt is no better than regression trees (n = 3)"


@pytest.fixture
def limited(weights):
    """Tiny weights that do not bear two steps and have a caveat."""
    entry = {"sha256": sha256(weights), "caveat": CAVEAT, "most_steps": 1}
    write_json(weights.with_name("limits.json"), {weights.name: entry})
    return weights


def test_a_caveat_is_in_log_record_and_report_as_a_doubt(file, limited, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["restore", str(file), "-o", str(out), "--weights", str(limited), *TINY]) == 0
    assert capsys.readouterr().out.count(f"WARNING scripts.running.case_evaluator: {CAVEAT}\n") == 1
    record = json.loads((out / "run.json").read_text())
    assert CAVEAT in record["warnings"]
    assert record["cases"]["anna"]["doubts"][0] == CAVEAT
    report(str(out))
    pages = [page.read_text() for page in (out / "report.html", out / "anna" / "report.html")]
    assert all(CAVEAT in page.partition("Doubts")[2] for page in pages)


def test_more_steps_than_weights_bear_are_refused_in_one_line_unless_forced(file, limited, tmp_path, capsys):
    command = ["restore", str(file), "-o", str(tmp_path / "out"), "--weights", str(limited), "--steps", "2", *TINY]
    assert main(command) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("error: ")] == told[-1:]
    assert "tiny.pt: 2 steps are more than these weights bear" in told[-1]
    assert not (tmp_path / "out" / "anna").exists()
    assert main([*command, "--force"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["system"]["nfe"] == 2


def test_from_python_they_are_told_and_refused_alike(file, limited, capsys):
    options = {"ckpt_path": str(limited), "size": "tiny", "precision": "float32"}
    restore(str(file), **options)
    assert f"WARNING scripts.running.steps: {CAVEAT}" in capsys.readouterr().out
    with pytest.raises(BadInput, match="2 steps are more than these weights bear"):
        restore(str(file), steps=2, **options)


def test_a_caveat_stands_first_in_what_dicom_results_say_of_themselves(limited):
    provenance = Provenance("tiny", str(limited), 1, 1, 0, Task(("t1ce",), "flair", None), unseen=("it is noise",))
    assert provenance.sentence.startswith(f"DOUBTED: it is noise. DOUBTED: {CAVEAT}. Synthetic image, ")
    limited.write_bytes(b"other weights")
    assert Provenance("tiny", str(limited), 1, 1, 0, Task(("t1ce",), "flair", None)).warning == ""
