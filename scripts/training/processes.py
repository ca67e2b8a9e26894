# SPDX-License-Identifier: Apache-2.0
"""Several processes, one training."""

import atexit
import os
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(seconds=10)  # with processes that are to leave at the same time


def join_processes() -> torch.device:
    """Join the process group that `torchrun` describes (nccl with GPUs, else gloo); this process's device."""
    cuda = torch.cuda.is_available()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(_leave)
    if not cuda:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _leave() -> None:
    """Leave the group together: threads of gloo that outlive the interpreter, or lose their peer, now and then abort."""
    with suppress(RuntimeError):  # another one has failed, and does not come
        if dist.get_backend() == "gloo":
            dist.monitored_barrier(timeout=PATIENCE)
    dist.destroy_process_group()


def seed_process(seed: int, rank: int = 0) -> None:
    """Seed what draws at random here; of several processes each draws something else."""
    torch.manual_seed(seed + rank)
