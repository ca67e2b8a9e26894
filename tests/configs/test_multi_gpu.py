# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_runs import draw, save

from scripts import bundle_root
from scripts.networks import ScoreFusion


@pytest.mark.parametrize("workflow", [["train_3d", "train_2d"], ["train_3d"]], ids=["plane", "fusion"])
def test_two_processes_train_validate_and_save_together(workflow, tmp_path, rng):
    torch.save(ScoreFusion(size="tiny").state_dict(), tmp_path / "planes.pt")
    for case in ("a", "b"):
        save(tmp_path / "data" / f"{case}_t1.nii.gz", draw(rng))
    configs = [str(Path(bundle_root()) / "configs" / f"{name}.yaml") for name in (*workflow, "multi_gpu")]
    small = "--size tiny --precision float32 --max_epochs 1 --steps_per_epoch 2 --batch_size 2 --val_interval 1 --val_cases 1"
    small += f" --regression_share 0.9 --plane_weights {'None' if 'train_2d' in workflow else tmp_path / 'planes.pt'}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "training", "--config_file", str(configs), *small.split()]
    command += ["--dataset_dir", str(tmp_path / "data"), "--cache_dir", str(tmp_path / "cache")]
    command += ["--ckpt_dir", str(tmp_path / "run"), "--split_train", "all", "--split_val", "all"]
    command += ["--patch", str([32] * (4 - len(workflow)))]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=bundle_root(), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[:6000]
    assert torch.load(tmp_path / "run" / "latest.pt", weights_only=True)["iteration"] == 2
    assert len(list((tmp_path / "cache").glob("*.planes.pt"))) == (0 if "train_2d" in workflow else 2 * 2)
