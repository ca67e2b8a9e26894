# SPDX-License-Identifier: Apache-2.0
import json
import re
from pathlib import Path

import pytest

from scripts import bundle_root
from scripts.errors import BadInput
from scripts.files import sha256, write_json
from scripts.limits import Limits, limits_of


@pytest.fixture
def shipped(tmp_path):
    """A file of weights with what is listed of it."""
    file = tmp_path / "shipped.pt"
    file.write_bytes(b"weights")
    write_json(tmp_path / "limits.json", {"shipped.pt": {"sha256": sha256(file), "caveat": "no better", "most_steps": 2}})
    return file


def test_limits_are_those_of_the_very_file(shipped):
    assert limits_of(shipped) == Limits("no better", 2)
    shipped.write_bytes(b"trained anew under the same name")
    assert limits_of(shipped, steps=50) == Limits()


@pytest.mark.parametrize("name", ["other.pt", "nowhere/shipped.pt"])
def test_of_other_weights_nothing_is_known(shipped, name):
    (shipped.parent / "other.pt").write_bytes(b"weights")
    assert limits_of(shipped.parent / name, steps=50) == Limits("", None)


@pytest.mark.parametrize("steps", [None, 1, 2])
def test_as_many_steps_as_they_bear_are_taken(shipped, steps):
    assert limits_of(shipped, steps=steps).most_steps == 2


def test_more_steps_than_they_bear_are_refused_unless_forced(shipped):
    with pytest.raises(
        BadInput, match=r"^shipped\.pt: 3 steps are more than these weights bear .*; take --steps 2 or fewer, or --force$"
    ):
        limits_of(shipped, steps=3)
    assert limits_of(shipped, steps=3, force=True).caveat == "no better"


def test_without_a_measured_number_any_is_taken(shipped):
    write_json(shipped.with_name("limits.json"), {"shipped.pt": {"sha256": sha256(shipped), "caveat": "no better"}})
    assert limits_of(shipped, steps=50) == Limits("no better", None)


def test_weights_are_offered_unless_their_limits_say_no(shipped):
    assert limits_of(shipped).offered
    entry = {"sha256": sha256(shipped), "caveat": "of one heart", "offered": False}
    write_json(shipped.with_name("limits.json"), {"shipped.pt": entry})
    assert not limits_of(shipped).offered


def test_a_broken_list_is_named(shipped):
    shipped.with_name("limits.json").write_text(json.dumps({})[:1])
    with pytest.raises(BadInput, match=r"limits\.json: cannot be read as JSON .*; fetch it again"):
        limits_of(shipped)


def test_limits_that_ship_are_of_the_weights_that_ship():
    models = Path(bundle_root(), "models")
    sums, limits = (json.loads((models / name).read_text()) for name in ("checksums.json", "limits.json"))
    assert {name: entry["sha256"] for name, entry in limits.items()} == {name: sums[name] for name in limits}
    assert limits_of(models / "translation.pt").caveat == limits["translation.pt"]["caveat"]
    for entry in limits.values():
        assert "\n" not in entry["caveat"]
        assert Path(bundle_root(), re.search(r"docs/\w+\.md", entry["caveat"]).group()).is_file()
