# SPDX-License-Identifier: Apache-2.0
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves
from training_processes import draw_cases, exit_codes, samples_of, save_samples, slices_of

from scripts.data.patches import EpochSampler, PatchDataset, SlicePatch, VolumePatch
from scripts.errors import BadInput

SIDES = (7, 8, 9)


def numbered():
    """A prepared volume whose condition says where each voxel lies: image (2, H, W, D), label (1, H, W, D)."""
    number = torch.arange(np.prod(SIDES), dtype=torch.float32).view(1, *SIDES)
    return torch.cat([number, torch.ones(1, *SIDES)]), number + 0.5


@pytest.mark.parametrize(
    ("patch", "size"),
    [
        (VolumePatch((3, 4, 5)), (3, 4, 5)),
        (VolumePatch(), SIDES),
        (SlicePatch("sagittal", (3, 4)), (3, 4)),
        (SlicePatch("axial", None, slab=5), (7, 8)),
        (SlicePatch("axial", (5, 5), slab=3), (5, 5)),
    ],
)
def test_patches_carry_the_coordinates_of_their_place_in_the_full_volume(patch, size, rng):
    image, label = numbered()
    for _ in range(10):
        sample = patch(image, label, rng)
        number = sample["base"][0].numpy().astype(int)
        assert number.shape == size
        axes = [np.linspace(-1, 1, side) for side in SIDES]
        wanted = [axis[place] for axis, place in zip(axes, np.unravel_index(number, SIDES), strict=True)]
        np.testing.assert_allclose(sample["image"][-4:-1], wanted, atol=1e-6)
        assert torch.equal(sample["label"][0], sample["base"][0] + 0.5)


def test_a_patch_larger_than_the_volume_is_filled_up_with_background(rng):
    image, label = numbered()
    sample = VolumePatch((9, 4, 12))(image, label, rng)
    assert sample.pop("start").tolist()[::2] == [0, 0] and not sample.pop("mirrored")
    assert {key: tuple(value.shape[1:]) for key, value in sample.items()} == dict.fromkeys(sample, (9, 4, 12))
    outside = torch.ones(9, 4, 12, dtype=torch.bool)
    outside[:7, :, :9] = False
    assert all((value[:, outside] == -1).all() for value in sample.values())
    assert (sample["base"][:, ~outside] >= 0).all()


def test_patches_start_at_multiples_of_the_block(rng):
    image, label = numbered()
    for _ in range(10):
        number = int(VolumePatch((3, 4, 2), (2, 4, 3))(image, label, rng)["base"][0, 0, 0, 0])
        assert all(place % factor == 0 for place, factor in zip(np.unravel_index(number, SIDES), (2, 4, 3), strict=True))


@pytest.mark.parametrize("patch", [VolumePatch((5, 6, 7)), SlicePatch("sagittal", (6, 7), slab=3), SlicePatch("axial", (5, 6))])
def test_nothing_but_the_patch_is_read(patch, rng):
    image, label = (torch.ones(channels, 1, 1, 1).half().expand(-1, *[10**6] * 3) for channels in (2, 1))  # 10^18 voxels
    sample = patch(image, label, rng)
    assert all(sample[key].dtype == torch.float32 for key in ("image", "label", "base"))


@pytest.mark.parametrize("patch", [VolumePatch((4, 4, 4), foreground=0.5), SlicePatch("coronal", (4, 4), foreground=0.5)])
def test_patches_hold_the_foreground_that_is_asked_for_where_there_is_some(patch, rng):
    image, label = torch.full((2, 16, 16, 16), -1.0), torch.zeros(1, 16, 16, 16)
    image[1, :, 4:12, 4:12] = 1.0  # a quarter of the volume; of ten draws none has half with a chance of 1 in 10 at most
    shares = [float((patch(image, label, rng)["image"][-1] > 0).float().mean()) for _ in range(100)]
    assert np.mean(np.array(shares) >= 0.5) > 0.7
    image[1] = -1.0
    assert patch(image, label, rng)["label"].shape[1:] in [(4, 4, 4), (4, 4)]  # none at all: the last draw is taken


def test_a_sample_depends_on_its_index_alone(seed, rng, tmp_path):
    cases = draw_cases(tmp_path, seed)
    order = rng.permutation(12).tolist()
    first, second = slices_of(cases, 12, seed), slices_of(cases, 12, seed)
    forwards = {index: first[index] for index in range(12)}
    for index in order:
        again = second[index]
        assert again["index"] == index
        assert all(torch.equal(again[key], forwards[index][key]) for key in ("image", "label", "base"))
    assert len({float(sample["image"].sum()) for sample in forwards.values()}) > 6  # two may be the same by chance


def test_samples_are_the_same_with_a_cold_cache_a_warm_one_and_in_another_process(seed, tmp_path):
    cases = draw_cases(tmp_path, seed)
    cold = samples_of(cases, seed)
    written = {path: path.stat().st_ino for path in (tmp_path / "cache").iterdir()}
    warm = samples_of(cases, seed)
    assert exit_codes((save_samples, (tmp_path / "samples.pt", cases, seed), {})) == [0]
    for again in (warm, torch.load(tmp_path / "samples.pt")):
        assert all(torch.equal(a, b) for a, b in zip(tree_leaves(again), tree_leaves(cold), strict=True))
    assert {path: path.stat().st_ino for path in (tmp_path / "cache").iterdir()} == written  # no volume was prepared again
    assert len(written) == len(cases)


def read_number(case):
    """A volume of the number that a file holds, in the place of a preprocessing."""
    return {"image": torch.full((2, 3, 3, 3), float(case["image"].read_text())), "label": torch.zeros(1, 3, 3, 3)}


def test_every_case_is_drawn_once_before_any_is_drawn_again(seed, tmp_path):
    files = [tmp_path / str(number) for number in range(7)]
    for file in files:
        file.write_text(file.name)
    cases = [{"image": file, "label": file} for file in files]
    dataset = PatchDataset(cases, read_number, cache_dir=tmp_path / "cache", patch=VolumePatch(), samples=10, seed=seed)
    drawn = np.array([int(dataset[index]["base"].mean()) for index in range(10 * 7)]).reshape(10, 7)
    assert (np.sort(drawn, axis=1) == np.arange(7)).all()
    assert len({tuple(turn) for turn in drawn}) > 1


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_epochs_continue_and_processes_share_them(replicas, seed, tmp_path):
    dataset = slices_of(draw_cases(tmp_path, seed, count=1), 12, seed)
    for epoch in (1, 2, 7):
        samplers = [EpochSampler(dataset, replicas, rank) for rank in range(replicas)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])} == {12 // replicas}
        assert sorted(index for share in shares for index in share) == list(range((epoch - 1) * 12, epoch * 12))


@pytest.mark.parametrize(
    ("make", "size"), [(VolumePatch, (3, 4)), (VolumePatch, (3, 4, 0)), (partial(SlicePatch, "axial"), (3, 4, 5))]
)
def test_a_patch_of_another_number_of_sides_is_refused(make, size):
    with pytest.raises(BadInput, match=r"^patch \[3, 4.*\]: give [23] sides of 1 and more"):
        make(size)
