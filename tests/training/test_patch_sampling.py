# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from training_processes import draw_cases, slices_of

from scripts.data.patches import EpochSampler, PatchDataset, SlicePatch, VolumePatch

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


def test_a_sample_depends_on_its_index_alone(seed, rng):
    cases = draw_cases(seed)
    order = rng.permutation(12).tolist()
    first, second = slices_of(cases, 12, seed), slices_of(cases, 12, seed)
    forwards = {index: first[index] for index in range(12)}
    for index in order:
        again = second[index]
        assert again["index"] == index
        assert all(torch.equal(again[key], forwards[index][key]) for key in ("image", "label", "base"))
    assert len({float(sample["image"].sum()) for sample in forwards.values()}) == 12


def test_every_case_is_drawn_once_before_any_is_drawn_again(seed):
    cases = [{"image": torch.full((2, 3, 3, 3), float(i)), "label": torch.zeros(1, 3, 3, 3)} for i in range(7)]
    dataset = PatchDataset(cases, lambda case: case, patch=VolumePatch(), samples=10, seed=seed)
    drawn = np.array([int(dataset[index]["base"].mean()) for index in range(10 * 7)]).reshape(10, 7)
    assert (np.sort(drawn, axis=1) == np.arange(7)).all()
    assert len({tuple(turn) for turn in drawn}) > 1


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_epochs_continue_and_processes_share_them(replicas, seed):
    dataset = slices_of(draw_cases(seed, count=1), 12, seed)
    for epoch in (1, 2, 7):
        samplers = [EpochSampler(dataset, replicas, rank) for rank in range(replicas)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])} == {12 // replicas}
        assert sorted(index for share in shares for index in share) == list(range((epoch - 1) * 12, epoch * 12))
