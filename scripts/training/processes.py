# SPDX-License-Identifier: Apache-2.0
"""Several processes, one training."""

import atexit
import os

import torch
import torch.distributed as dist


def join_processes() -> torch.device:
    """Join the process group that `torchrun` describes (nccl with GPUs, else gloo); this process's device."""
    cuda = torch.cuda.is_available()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)  # or its threads outlive the interpreter, which now and then aborts
    if not cuda:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def seed_process(seed: int, rank: int = 0) -> None:
    """Seed what draws at random here; of several processes each draws something else."""
    torch.manual_seed(seed + rank)
