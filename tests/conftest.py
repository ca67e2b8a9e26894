# SPDX-License-Identifier: Apache-2.0
"""What all tests share: inputs drawn anew under a printed seed, networks that are not silent, and volumes."""

import gc
import logging
import os
import random
import sys
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small inputs: threads would only wait for each other

import numpy as np
import pytest
import torch
from surroundings import awakened, skipped_in_words

from scripts import logs

gc.set_threshold(50_000, 20, 100)  # looking for cycles among all that frameworks import took a seventh of the time

with suppress(ImportError):
    # TensorBoard's logger: when a run sets how its process logs, it closes what stderr was when it was imported.
    from absl.logging import get_absl_handler

    get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """A run sets how its process logs and how it ends: taken back, so that no test depends on those before it."""
    root = logging.getLogger()
    level, handlers, hook = root.level, root.handlers[:], sys.excepthook
    try:
        return (yield)
    finally:
        root.setLevel(level)
        root.handlers[:], sys.excepthook = handlers, hook


def pytest_terminal_summary(terminalreporter):
    line = skipped_in_words(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    if line:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def configs_parsed_once():
    """A config of the same bytes is parsed once: in pure Python that is slower than most of what is tested with it."""
    if (bundle := sys.modules.get("monai.bundle")) is None:  # no test here reads one
        yield
        return
    parse, kept = bundle.ConfigParser.load_config_file, {}

    def load(filepath, **options):
        path = Path(filepath)
        if options or not path.is_file():
            return parse(filepath, **options)
        key = path, path.read_bytes()
        if key not in kept:
            kept[key] = parse(filepath)
        return deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle.ConfigParser, "load_config_file", staticmethod(load))
        yield


@pytest.fixture(autouse=True, scope="session")
def state_of_tests_alone(tmp_path_factory):
    """Weights that tests train and add are nothing that this account trusts from then on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def manner_of_tests_alone(monkeypatch):
    """What a test told this process to say no test after it is bound to."""
    monkeypatch.setattr(logs, "_manner", logs.Manner())


@pytest.fixture
def seed():
    """Drawn anew for every test and printed when it fails; `TEST_SEED=123 pytest ...` repeats it."""
    drawn = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"TEST_SEED={drawn}")
    torch.manual_seed(drawn)
    return drawn


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def awaken(seed):
    """As `awakened`, with random values of the test's own seed."""
    return awakened


@pytest.fixture
def draw_head(rng):
    """A function (H, W, D) -> (1, 1, H, W, D): noise around 1 in a box, zero around it, as after skull stripping."""

    def draw_head(*shape):
        head = np.zeros(shape, dtype=np.float32)
        box = tuple(slice(side // 4, side - side // 4) for side in shape)
        head[box] = rng.uniform(0.7, 1.2, head[box].shape)
        return torch.from_numpy(head)[None, None]

    return draw_head
