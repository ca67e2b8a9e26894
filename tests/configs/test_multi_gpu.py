# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import torch
from test_runs import draw, save

from scripts import bundle_root


def test_two_processes_train_validate_and_save_together(tmp_path, rng):
    for case in ("a", "b"):
        save(tmp_path / "data" / f"{case}_t1.nii.gz", draw(rng))
    configs = [str(Path(bundle_root()) / "configs" / f"{name}.yaml") for name in ("train_3d", "train_2d", "multi_gpu")]
    small = "--size tiny --precision float32 --max_epochs 1 --steps_per_epoch 2 --batch_size 2 --val_interval 1 --val_cases 1"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "training", "--config_file", str(configs), *small.split()]
    command += ["--dataset_dir", str(tmp_path / "data"), "--cache_dir", str(tmp_path / "cache")]
    command += ["--ckpt_dir", str(tmp_path / "run"), "--split_train", "all", "--split_val", "all", "--patch", "[16,16]"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=bundle_root(), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.load(tmp_path / "run" / "latest.pt", weights_only=True)["iteration"] == 2
