# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from scripts.errors import BadInput
from scripts.files import sha256, write_json
from scripts.networks import ScoreFusion
from scripts.networks.weights import export_weights, own_or_shipped, write


@pytest.fixture
def checkpoint(tmp_path):
    write({"objects": {"ema": ScoreFusion(size="tiny", features=False).state_dict()}}, tmp_path / "latest.pt")
    return str(tmp_path / "latest.pt")


def test_an_export_never_replaces_a_file_unasked_and_says_what_is_next(checkpoint, tmp_path, capsys):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"weights of yesterday")
    with pytest.raises(BadInput, match=r"mine\.pt: is there already; give another name, or --overwrite$"):
        export_weights(checkpoint, str(mine))
    assert mine.read_bytes() == b"weights of yesterday"
    export_weights(checkpoint, str(mine), overwrite=True)
    assert mine.stat().st_size > 1000
    assert capsys.readouterr().out == f"weights: {mine}; next: score-fusion restore SCAN -o OUT --weights {mine}\n"


def test_weights_that_ship_need_more_than_overwrite_and_keep_their_sum(checkpoint, tmp_path):
    shipped, table = tmp_path / "model.pt", tmp_path / "checksums.json"
    shipped.write_bytes(b"shipped")
    listed = {"model.pt": sha256(shipped), "other.pt": "0" * 64}
    write_json(table, listed)
    with pytest.raises(BadInput, match=r"model\.pt: is a name of weights that ship; give another one"):
        export_weights(checkpoint, str(shipped), overwrite=True)
    assert shipped.read_bytes() == b"shipped"
    assert json.loads(table.read_text()) == listed
    export_weights(checkpoint, str(tmp_path / "mine.pt"))  # another name beside them: nobody's sum changes
    assert json.loads(table.read_text()) == listed
    export_weights(checkpoint, str(shipped), replace_shipped=True)
    assert json.loads(table.read_text()) == {**listed, "model.pt": sha256(shipped)}


def test_a_broken_list_of_sums_is_named(checkpoint, tmp_path):
    (tmp_path / "checksums.json").write_text('{"model.pt": ')
    with pytest.raises(BadInput, match=r"checksums\.json: cannot be read as JSON .*; fetch it again"):
        export_weights(checkpoint, str(tmp_path / "model.pt"))


@pytest.mark.parametrize("have", [[], ["coronal"], ["coronal", "sagittal"]], ids=str)
def test_without_planes_of_ones_own_a_fusion_takes_the_shipped_ones_and_says_so(have, tmp_path, caplog):
    own, shipped = str(tmp_path / "{plane}.pt"), tmp_path / "model.pt"
    for plane in have:
        (tmp_path / f"{plane}.pt").touch()
    shipped.touch()
    if len(have) == 1:
        with pytest.raises(BadInput, match=r"sagittal\.pt: no such weights file; train this plane first"):
            own_or_shipped(own, str(shipped), ["coronal", "sagittal"])
        return
    assert own_or_shipped(own, str(shipped), ["coronal", "sagittal"]) == (own if have else str(shipped))
    assert ("no planes of your own" in caplog.text) == (not have)


def test_a_task_whose_weights_do_not_ship_asks_for_planes(tmp_path):
    with pytest.raises(BadInput, match=r"coronal\.pt: no such weights file; train this plane first, or give --plane_weights"):
        own_or_shipped(str(tmp_path / "{plane}.pt"), str(tmp_path / "none.pt"), ["coronal", "sagittal"])
