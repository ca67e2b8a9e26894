# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch.utils._pytree import tree_leaves
from training_processes import draw_cases

from scripts.data import LoadVolumesd, PatchDataset, PrepareTrainingd, VolumePatch
from scripts.diffusion import Diffusion
from scripts.measurement import BlockAverage
from scripts.measurement.channels import coordinates
from scripts.networks import ModalityFusion, ScoreFusion
from scripts.training import NoiseLoss, NoisyBatch, PlaneCache, RecallingFusion, plane_cache

REGRESSION = Diffusion(sigma_data=0.1, regression_share=0.999)
HALF = 2**-10  # float16 rounds by half of this at most; two roundings where sums of them meet


@pytest.fixture
def fusion(awaken):
    return awaken(ScoreFusion(["coronal", "sagittal"], size="tiny", slab=3))


@pytest.fixture
def patches(tmp_path, seed):
    """A function of a patch size: patches of volumes whose sides are not alike, nor multiples of anything."""

    cases = draw_cases(tmp_path, seed, count=2, sides=(20, 28, 24))

    def patches(size=(8, 12, 8), block=(4, 4, 4), samples=20):
        average = BlockAverage((4, 4, 4))
        steps = Compose([LoadVolumesd(degradation=average, simulate=True), PrepareTrainingd(average)])
        cut = VolumePatch(size, block)
        return PatchDataset(cases, steps, cache_dir=tmp_path / "cache", patch=cut, samples=samples, seed=seed)

    return patches


def cache_of(network, dataset, **options):
    cache = PlaneCache(network, dataset, **{"epochs": 100, "share": 0.7, "precision": "float32", **options})
    cache.prepare()
    return cache


def drawn(dataset, *indices):
    return torch.utils.data.default_collate([dataset[index] for index in indices])


def whole_slices(network, dataset, batch):
    """Estimates and aligned features of the planes run live on whole volumes, cut to the patches; no cache is asked."""
    estimates, aligned = [], []
    for case, start in zip(batch["case"].tolist(), batch["start"].tolist(), strict=True):
        volume = dataset.volumes[case]["image"].float()
        full, sides = list(volume.shape[1:]), list(batch["image"].shape[2:])
        x = torch.cat([volume[:-1], coordinates(full, [0, 0, 0], full), volume[-1:]])[None]
        said, maps = network.estimates(x, torch.zeros_like(x[:, :1]), torch.zeros(1))
        estimates.append(said[(..., *(slice(a, a + b) for a, b in zip(start, sides, strict=True)))])
        coarse = [2**level for level in range(len(maps))]
        boxes = [[slice(a // f, -(-(a + b) // f)) for a, b in zip(start, sides, strict=True)] for f in coarse]
        aligned.append([level[(..., *box)] for level, box in zip(maps, boxes, strict=True)])
    return torch.cat(estimates), [torch.cat(level) for level in zip(*aligned, strict=True)]


@pytest.mark.parametrize("size", [(8, 12, 8), (6, 9, 8)])
def test_the_loss_of_a_step_is_that_of_planes_run_live_on_whole_slices(size, fusion, patches):
    dataset = patches(size)
    cache = cache_of(fusion, dataset)
    assert cache.ready
    batch = drawn(dataset, 0, 1, 2)
    x, target, _, noisy = NoisyBatch(REGRESSION, kept=cache)(batch)
    loss = NoiseLoss()(RecallingFusion(fusion)(x, **noisy), target)
    live = fusion.fusion(x, noisy["x_t"], noisy["timesteps"], *whole_slices(fusion, dataset, batch))
    assert loss.item() == pytest.approx(NoiseLoss()(live, target).item(), rel=20 * HALF)
    other = fusion(x, noisy["x_t"], noisy["timesteps"])  # slices of the patch have other statistics
    assert (RecallingFusion(fusion)(x, **noisy) - live).abs().max() < 0.05 * (other - live).abs().max()


def test_alignments_learn_from_what_is_recalled(fusion, patches):
    dataset = patches()
    cache, batch = cache_of(fusion, dataset), drawn(dataset, 0)
    x, target, _, noisy = NoisyBatch(REGRESSION, kept=cache)(batch)
    NoiseLoss()(RecallingFusion(fusion)(x, **noisy), target).backward()
    kept = [parameter.grad.clone() for parameter in fusion.members.parameters() if parameter.grad is not None]
    fusion.zero_grad()
    x, target, _, noisy = NoisyBatch(REGRESSION)(batch)
    live = fusion.fusion(x, noisy["x_t"], noisy["timesteps"], *whole_slices(fusion, dataset, batch))
    NoiseLoss()(live, target).backward()
    again = [parameter.grad for parameter in fusion.members.parameters() if parameter.grad is not None]
    assert len(kept) == len(again) == 2 * 2 * 2  # weight and bias, levels, planes
    for one, other in zip(kept, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=20 * HALF * float(other.abs().max()))


def test_samples_with_noise_are_computed_live_beside_those_without(fusion, patches):
    dataset = patches()
    cache, batch = cache_of(fusion, dataset), drawn(dataset, 0, 1)
    gamma, x = torch.tensor([0.0, 0.4]), batch["image"]
    x_t = torch.randn(batch["label"].shape) * (gamma > 0).view(-1, 1, 1, 1, 1)
    kept = cache.recall(batch, gamma)
    assert kept[0] is not None
    assert kept[1] is None
    both = RecallingFusion(fusion)(x, x_t, gamma, kept)
    alone = RecallingFusion(fusion)(x[:1], x_t[:1], gamma[:1], kept[:1])
    torch.testing.assert_close(both, torch.cat([alone, fusion(x[1:], x_t[1:], gamma[1:])]), rtol=1e-4, atol=1e-5)


def test_a_patch_larger_than_the_volume_is_filled_up_with_what_planes_say_of_background(fusion, patches):
    dataset = patches((24, 28, 32))
    cache, batch = cache_of(fusion, dataset), drawn(dataset, 0)
    (said,) = cache.recall(batch, torch.zeros(1))
    for estimate, maps in said:
        assert estimate.shape == (24, 28, 32)
        assert estimate[:20, :, :24].any()
        assert not estimate[20:].any()
        assert not estimate[:, :, 24:].any()
        assert len(maps) == 2
    assert RecallingFusion(fusion)(batch["image"], torch.zeros(1, 1, 24, 28, 32), torch.zeros(1), [said]).isfinite().all()


def test_patches_start_where_the_coarsest_map_has_a_voxel(fusion, patches):
    dataset = patches((8, 8, 8), block=(1, 1, 3))
    cache_of(fusion, dataset)
    starts = np.array([dataset[index]["start"].tolist() for index in range(20)])
    assert not (starts % [2, 2, 6]).any()
    assert (starts[:, 0] % 4).any() or (starts[:, 1] % 4).any()


def test_files_are_found_again_by_the_same_planes_alone(fusion, patches, monkeypatch, awaken):
    dataset = patches()
    cache_of(fusion, dataset)
    folder = dataset.volumes.folder
    written = {path: path.stat().st_ino for path in folder.iterdir()}
    assert len([path for path in written if path.name.endswith(".planes.pt")]) == 2 * 2
    computed = []
    compute = PlaneCache._computed
    monkeypatch.setattr(PlaneCache, "_computed", lambda *args: computed.append(args[2].plane) or compute(*args))
    with torch.no_grad():  # trained, and no part of what is kept
        fusion.members[0].alignments[0].conv.weight.add_(1)
    cache_of(fusion, patches())
    assert computed == []
    with torch.no_grad():
        fusion.members[0].denoiser.unet.last.weight.add_(1)
    cache_of(fusion, patches())
    assert computed == ["coronal"] * 2
    assert written.items() <= {path: path.stat().st_ino for path in folder.iterdir()}.items()


@pytest.mark.parametrize(
    ("options", "free", "said"),
    [
        ({"wanted": False}, 10**9, ""),
        ({"epochs": 0}, 10**9, "0 draws at gamma = 0 are fewer than the 2 volumes"),
        ({"epochs": 1, "share": 0.2}, 10**9, "4 draws at gamma = 0 hold fewer voxels than the volumes"),
        ({}, 10**6, "has 0.0 GB free"),
    ],
)
def test_planes_are_computed_live_where_it_is_wanted_cheaper_or_the_disk_too_small(
    options, free, said, fusion, patches, monkeypatch, caplog
):
    monkeypatch.setattr(plane_cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    dataset = patches()
    with caplog.at_level("INFO"):
        cache = cache_of(fusion, dataset, **options)
    assert not cache.ready
    assert not list(dataset.volumes.folder.glob("*.planes.pt"))
    assert said in caplog.text
    assert len(caplog.records) == bool(said)
    assert "kept" not in NoisyBatch(REGRESSION, kept=cache)(drawn(dataset, 0))[3]


def test_the_size_that_is_told_is_that_of_the_files(fusion, patches, caplog):
    dataset = patches()
    with caplog.at_level("INFO"):
        cache_of(fusion, dataset)
    told = plane_cache._bytes_a_voxel(fusion.members[0]) * 20 * 28 * 24
    for path in dataset.volumes.folder.glob("*.planes.pt"):
        assert told < path.stat().st_size < told + 4096
    assert "GB more" in caplog.text


def test_planes_of_several_conditions_are_kept_as_they_answer_the_fusion(patches, awaken):
    fusion = awaken(ModalityFusion(["axial"], [[0], [0]], "tiny", sigma_data=0.1))
    dataset = patches()
    cache, batch = cache_of(fusion, dataset), drawn(dataset, 0)
    (said,) = cache.recall(batch, torch.zeros(1))
    live, _ = whole_slices(fusion, dataset, batch)
    torch.testing.assert_close(torch.stack([estimate for estimate, _ in said])[None], live, rtol=HALF, atol=HALF)


def test_a_resumed_training_recalls_and_draws_what_one_without_a_break_does(fusion, patches):
    state = torch.get_rng_state()
    answers = []
    for _ in range(2):  # computed, then found
        dataset = patches()
        cache = cache_of(fusion.train(), dataset)
        batch = drawn(dataset, 0, 1)
        answers.append(cache.recall(batch, torch.zeros(2)))
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(*map(tree_leaves, answers), strict=True):
        assert torch.equal(one, other)
