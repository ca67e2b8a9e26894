# SPDX-License-Identifier: Apache-2.0
import logging
import threading

import pytest
import torch

from scripts.inferers.precision import half_difference
from scripts.networks import ScoreFusion
from scripts.running import heartbeat
from scripts.running.heartbeat import Heartbeat


@pytest.fixture
def beats(monkeypatch, caplog):
    monkeypatch.setattr(heartbeat, "PERIOD", 0.01)
    caplog.set_level(logging.INFO, heartbeat.__name__)
    return caplog


def wait_for(text, beats):
    for _ in range(500):
        if any(text in message for message in beats.messages):
            return True
        threading.Event().wait(0.01)
    return False


def test_lines_say_how_far_a_volume_is_and_end_with_it(beats):
    network = ScoreFusion(["coronal", "sagittal"], size="tiny").eval()
    with Heartbeat("anna", network), torch.no_grad():
        half_difference(network, torch.device("cpu"), 5)
        network(torch.zeros(1, 5, 36, 40, 36), torch.zeros(1, 1, 36, 40, 36), torch.zeros(1))
        assert wait_for("s, 76 slices of planes, 1 fusion", beats)  # 40 coronal and 36 sagittal ones
    assert all(message.startswith("case anna: ") for message in beats.messages)
    assert not any(module._forward_hooks for module in network.modules())
    threading.Event().wait(0.05)
    said = len(beats.messages)
    threading.Event().wait(0.1)
    assert len(beats.messages) == said


def test_it_ends_when_a_case_fails(beats):
    before = threading.active_count()
    with pytest.raises(RuntimeError), Heartbeat("bert", torch.nn.Identity()):
        raise RuntimeError
    for _ in range(100):
        if threading.active_count() <= before:
            return
        threading.Event().wait(0.01)
    pytest.fail("the thread goes on")
