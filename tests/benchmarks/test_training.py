# SPDX-License-Identifier: Apache-2.0
import pytest

from scripts.benchmarks.training import SHARE, training_speed
from scripts.errors import BadInput


def test_the_gain_is_that_of_the_steps_that_are_kept(capsys, monkeypatch):
    monkeypatch.setattr("scripts.benchmarks.training.PATCH", (16, 16, 16))
    figures = training_speed("tiny", precision="float32", steps=2, box=(24, 28, 20), profile=True)
    live, kept, mean = (value for name, value in figures.items() if name.endswith("a step: s"))
    assert mean == pytest.approx(SHARE * kept + (1 - SHARE) * live)
    assert figures["live / kept, a step"] == pytest.approx(live / mean)
    printed = capsys.readouterr().out
    assert all(name in printed for name in figures)
    assert "convolution_backward" in printed


def test_no_steps_are_refused():
    with pytest.raises(BadInput, match="--steps 0: give 1 and more"):
        training_speed("tiny", steps=0)
