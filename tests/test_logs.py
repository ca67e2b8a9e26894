# SPDX-License-Identifier: Apache-2.0
"""How much a command says and how, each in a process of its own: the logging of this one is pytest's."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from scripts import bundle_root

WORK = """
import logging, logging.config, sys
from scripts import logs
from scripts.errors import BadInput, exit_code
logs.speak(*eval(sys.argv[1]))
def work():
    logs.say("begins")
    logging.config.fileConfig("configs/logging.conf", disable_existing_loggers=False)  # as a workflow does
    logs.resume()
    logging.getLogger("monai").info("told\\nin two lines")
    logging.getLogger("scripts.data").warning("doubted")
    raise BadInput("a: is bad; mend it")
sys.exit(exit_code(work))
"""


def spoken(*manner):
    command = [sys.executable, "-c", WORK, repr(manner)]
    ended = subprocess.run(command, cwd=bundle_root(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "error: a: is bad; mend it\n")
    return ended.stdout


def test_by_default_lines_of_text():
    said = spoken()
    assert (
        said.startswith("begins\n") and "INFO monai: told\nin two lines\n" in said and "WARNING scripts.data: doubted" in said
    )
    assert "Traceback" not in said


def test_quiet_leaves_warnings_alone():
    (line,) = spoken("quiet").splitlines()
    assert line.endswith("WARNING scripts.data: doubted")


def test_verbose_adds_where_something_was_refused():
    said = spoken("verbose")
    assert "begins\n" in said and "INFO monai: told" in said
    assert said.splitlines()[-1] == "scripts.errors.BadInput: a: is bad; mend it"


@pytest.mark.parametrize(("verbosity", "told"), [("", 3), ("quiet", 1), ("verbose", 4)])
def test_json_is_one_object_a_line(verbosity, told):
    before = datetime.now(UTC).replace(microsecond=0)
    records = [json.loads(line) for line in spoken(verbosity, True).splitlines()]
    assert len(records) == told
    assert all(datetime.fromisoformat(record["time"]) >= before for record in records)
    by_message = {record["message"]: record for record in records}
    assert by_message["doubted"].keys() == {"time", "level", "logger", "message"}
    assert (by_message["doubted"]["level"], by_message["doubted"]["logger"]) == ("WARNING", "scripts.data")
    assert ("told\nin two lines" in by_message) == ("begins" in by_message) == (verbosity != "quiet")
    assert [record["logger"] for record in records if "traceback" in record] == ["scripts.errors"] * (verbosity == "verbose")
