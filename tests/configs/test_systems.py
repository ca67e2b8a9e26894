# SPDX-License-Identifier: Apache-2.0
"""Every system of docs/systems.md: trained for one step where it needs a training of its own, and run."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from test_runs import FINE, ONE_STEP, block_averages, draw, launch, save

from scripts.networks import ModalityFusion, ScoreFusion, VolumeDenoiser

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of code in configs, at every run
TWO, THREE = ["coronal", "sagittal"], ["coronal", "sagittal", "axial"]


@pytest.fixture(scope="module")
def rng():
    seed = int(np.random.SeedSequence().entropy % 2**31)
    print(f"TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory, rng):
    folder = tmp_path_factory.mktemp("data")
    for case in range(2):
        for modality in ("t1", "t1ce", "flair"):
            save(folder / f"case{case}_{modality}.nii.gz", draw(rng, (32, 32, 36)))
    return str(folder)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory, rng):
    """A measurement of 4 mm, and its voxels."""
    folder, voxels = tmp_path_factory.mktemp("coarse"), rng.uniform(100, 900, (8, 8, 9)).astype(np.float32)
    voxels[:2], voxels[:, 7], voxels[..., 0] = 0, 0, 0
    save(folder / "anna_t1.nii.gz", voxels, FINE @ np.diag([4, 4, 4, 1]))
    return str(folder), voxels


def train(base, overlays, data, folder, **overrides):
    """One step; what changed in the network, and all objects of the checkpoint."""
    budget = {**ONE_STEP, "val_interval": 2, "patch": [24] * (2 if base == "train_2d" else 3)}
    launch("training", base, *overlays, **budget, dataset_dir=data, ckpt_dir=str(folder), **overrides)
    objects = torch.load(folder / "latest.pt", weights_only=True)["objects"]
    network, averaged = objects["network"], objects["ema"]
    assert all(value.isfinite().all() for value in network.values())
    return {key for key in network if not torch.equal(network[key], averaged[key])}, objects


@pytest.mark.parametrize(
    ("base", "overlays", "dims"),
    [
        ("train_2d", ["bridge_i2sb"], None),
        ("train_2d", ["gan_pix2pix"], 2),
        ("train_3d", ["network_volume", "regression"], None),
        ("train_3d", ["network_volume", "gan_pix2pix"], 3),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else str(part or ""),
)
def test_a_system_trains_for_a_step(base, overlays, dims, data, tmp_path):
    changed, objects = train(base, overlays, data, tmp_path, **({"slab": 3} if base == "train_2d" else {}))
    assert changed
    assert ("adversary" in objects) == (dims is not None)
    if dims is not None:
        kernel = objects["adversary"]["discriminator.initial_conv.conv.weight"]
        assert kernel.shape[2:] == (4,) * dims
        assert objects["adversary"]["_extra_state"]["state"][0]["step"] == 1


def test_modalities_are_fused_over_planes_that_stay_as_they_were(data, tmp_path, awaken):
    alone = awaken(ScoreFusion(["coronal"], size="tiny", fusion=False))
    for seen in (0, 1):
        torch.save(alone.state_dict(), tmp_path / f"{seen}_coronal.pt")
    weights = {"plane_weights": str(tmp_path / "{seen}_{plane}.pt"), "planes": ["coronal"]}
    changed, objects = train("train_3d", ["task_both", "network_modalities"], data, tmp_path / "run", **weights)
    assert any(key.startswith("fusion.") for key in changed)
    for key, value in alone.state_dict().items():
        for index in (0, 1):
            assert torch.equal(objects["network"][key.replace("members.0", f"members.{index}")], value)


@pytest.mark.parametrize(
    ("overlays", "network", "overrides", "nfe"),
    [
        (["ensemble_tpdm", "combine_alternate"], lambda: ScoreFusion(TWO, size="tiny"), {"steps": 4}, 2),
        (["ensemble_madm", "combine_states", "sampler_reference"], lambda: ScoreFusion(THREE, size="tiny", slab=5),
         {"steps": 4}, 2),
        (["ensemble_madm", "combine_once"], lambda: ScoreFusion(THREE, size="tiny", slab=5), {}, 1),
        (["ensemble_single"], lambda: ScoreFusion(["coronal"], size="tiny", fusion=False), {"fusion": False}, 1),
        (["network_volume", "bridge_i2sb"], lambda: VolumeDenoiser(size="tiny"), {"steps": 3}, 3),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)  # fmt: skip
def test_a_system_runs_and_keeps_the_measurement(overlays, network, overrides, nfe, coarse, tmp_path, awaken):
    folder, voxels = coarse
    torch.save(awaken(network()).state_dict(), tmp_path / "weights.pt")
    paths = {"dataset_dir": folder, "output_dir": str(tmp_path / "out"), "ckpt_path": str(tmp_path / "weights.pt")}
    launch("inference", "inference", *overlays, **paths, **overrides)
    pred = nib.load(tmp_path / "out" / "anna" / "anna_pred.nii.gz").get_fdata()
    np.testing.assert_allclose(block_averages(pred), voxels, rtol=1e-5, atol=1e-5 * voxels.max())
    assert np.ptp(pred - np.repeat(np.repeat(np.repeat(voxels, 4, 0), 4, 1), 4, 2)) > 0
    system = json.loads((tmp_path / "out" / "run.json").read_text())["system"]
    assert system["nfe"] == nfe


def test_modalities_average_or_fuse(data, tmp_path, awaken):
    awake = awaken(ModalityFusion(["coronal"], [[0], [1]], "tiny", sigma_data=0.085))
    torch.save(awake.state_dict(), tmp_path / "both.pt")
    paths = {"dataset_dir": data, "ckpt_path": str(tmp_path / "both.pt"), "planes": ["coronal"], "max_cases": 1, "split": "all"}
    psnr = []
    for fusion in (True, False):
        launch("evaluating", "evaluate", "task_both", "network_modalities", **paths, fusion=fusion,
               output_dir=str(tmp_path / str(fusion)), feature_network=False)  # fmt: skip
        psnr.append(json.loads((tmp_path / str(fusion) / "results.json").read_text())["mean"]["psnr"])
    assert np.isfinite(psnr).all()
    assert psnr[0] != psnr[1]
