# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from scripts.errors import BadInput
from scripts.files import sha256, write_json
from scripts.networks import ScoreFusion
from scripts.networks.weights import export_weights, write


@pytest.fixture
def checkpoint(tmp_path):
    write({"objects": {"ema": ScoreFusion(size="tiny", features=False).state_dict()}}, tmp_path / "latest.pt")
    return str(tmp_path / "latest.pt")


def test_an_export_never_replaces_a_file_unasked(checkpoint, tmp_path):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"weights of yesterday")
    with pytest.raises(BadInput, match=r"mine\.pt: is there already; give another name, or --overwrite$"):
        export_weights(checkpoint, str(mine))
    assert mine.read_bytes() == b"weights of yesterday"
    export_weights(checkpoint, str(mine), overwrite=True)
    assert mine.stat().st_size > 1000


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
