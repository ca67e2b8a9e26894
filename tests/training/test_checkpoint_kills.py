# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are being written when the power goes."""

import multiprocessing
import os
import signal
import time

import torch
from training_processes import PRELOADED, save_forever

from scripts.networks.weights import read

KILLS = int(os.environ.get("KILLS", "4"))  # make soak: 200


def test_a_kill_while_checkpoints_are_written_leaves_a_whole_one_and_what_was_left_goes(rng, tmp_path):
    """Each process goes on after the last one, and is killed at a random moment of its saving."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    path, ready, step, cut = tmp_path / "latest.pt", tmp_path / "ready", 0, 0
    for _ in range(KILLS):
        process = context.Process(target=save_forever, args=(str(path), str(ready)))
        process.start()
        while process.is_alive() and not ready.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # and not of an error, such as a checkpoint that cannot be read
        leftovers = list(tmp_path.glob(".*"))
        assert len(leftovers) <= 1  # those of the kill before are gone
        cut += len(leftovers)
        ready.unlink()
        saved = read(path)
        assert saved["iteration"] > step  # none of the steps that were saved is lost
        step = saved["iteration"]
        assert torch.equal(saved["objects"]["network"]["weight"], torch.full((300, 1000), float(step)))
    print(f"{cut} of {KILLS} kills came while a file was written, {step} checkpoints in all")
    if KILLS > 50:
        assert cut > 0
