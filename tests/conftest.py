# SPDX-License-Identifier: Apache-2.0
"""What all tests share: inputs drawn anew under a printed seed, networks that are not silent, and volumes."""

import os
import random

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small inputs: threads would only wait for each other

import numpy as np
import pytest
import torch


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
    """A function that gives every all-zero parameter of a module random values: new networks say zero otherwise."""

    def awaken(module):
        with torch.no_grad():
            for parameter in module.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
        return module

    return awaken


@pytest.fixture
def draw_head(rng):
    """A function (H, W, D) -> (1, 1, H, W, D): noise around 1 in a box, zero around it, as after skull stripping."""

    def draw_head(*shape):
        head = np.zeros(shape, dtype=np.float32)
        box = tuple(slice(side // 4, side - side // 4) for side in shape)
        head[box] = rng.uniform(0.7, 1.2, head[box].shape)
        return torch.from_numpy(head)[None, None]

    return draw_head
