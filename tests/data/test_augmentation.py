# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from scripts.data import Augmentation, SlicePatch, VolumePatch
from scripts.measurement import BlockAverage
from scripts.measurement.channels import coordinates

SHAPE = (12, 16, 20)


@pytest.fixture
def case(rng):
    """Two conditions and a mask, a label, background around."""
    head = torch.zeros(SHAPE, dtype=torch.bool)
    head[2:-3, 2:-2, 2:-2] = True
    image = torch.from_numpy(rng.uniform(-0.9, 0.5, (3, *SHAPE))).float().where(head, -1.0)
    image[2] = torch.where(head, 1.0, -1.0)
    return {"image": image, "label": torch.from_numpy(rng.uniform(-1, 1, (1, *SHAPE))).float()}


def test_a_mirrored_sample_is_one_of_the_mirrored_volume_in_its_own_place(case, rng):
    """Coordinates are those of the place: of the mirrored head, not mirrored themselves."""
    seed = int(rng.integers(1 << 30))
    sample = VolumePatch((8, 8, 8), augmentation=Augmentation(mirror=1.0))(**case, rng=np.random.default_rng(seed))
    assert sample["mirrored"]
    box = (slice(None), *(slice(first, first + 8) for first in sample["start"].tolist()))
    assert torch.equal(sample["image"][:2], case["image"].flip(1)[box][:2])
    assert torch.equal(sample["label"], case["label"].flip(1)[box])
    assert torch.equal(sample["image"][2:5], coordinates(SHAPE)[box])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_are_mirrored_too(case, plane, rng):
    seed = int(rng.integers(1 << 30))

    def drawn(mirror, **volumes):
        return SlicePatch(plane, augmentation=Augmentation(mirror))(**volumes, rng=np.random.default_rng(seed))

    turned = drawn(1.0, **case)
    rng = np.random.default_rng(seed)
    rng.random()  # that decides
    plain = SlicePatch(plane)(**{name: volume.flip(1) for name, volume in case.items()}, rng=rng)
    assert all(torch.equal(turned[key], plain[key]) for key in plain)


def test_only_what_was_not_measured_varies_and_background_stays(case, rng):
    augmentation = Augmentation(vary=1.0, measured=1)
    sample = VolumePatch(augmentation=augmentation)(**case, rng=rng)
    first, second = sample["image"][0], sample["image"][1]
    background = case["image"][1] == -1
    assert torch.equal(first, case["image"][0]) and torch.equal(sample["label"], case["label"])
    assert (second[background] == -1).all() and not torch.equal(second, case["image"][1])
    change = (second - case["image"][1]).abs()
    assert torch.isfinite(second).all() and change.mean() < 0.6 and change.max() < 2.5  # a field five deviations off doubles
    translation = VolumePatch(augmentation=augmentation._replace(measured=0))(**case, rng=rng)
    assert torch.equal(translation["base"][0], translation["image"][0])
    assert not torch.equal(translation["base"][0], case["image"][0])


def test_shares_are_shares(case):
    patch = VolumePatch((8, 8, 8), augmentation=Augmentation(mirror=0.3))
    mirrored = np.mean([bool(patch(**case, rng=np.random.default_rng(seed))["mirrored"]) for seed in range(300)])
    assert 0.2 < mirrored < 0.4


def test_a_turned_sample_is_one_of_eight_ways_to_lay_its_plane_and_keeps_its_measurement(rng):
    """On a circle it begins anywhere; blocks stay whole, so that the measurement of the turned is the turned measurement."""
    degradation = BlockAverage((4, 4, 2), periodic=True)
    label = torch.from_numpy(rng.uniform(-1, 1, (1, 8, 12, 6))).float()
    image = torch.cat([degradation(label), torch.ones_like(label)])
    ways = {
        (flips, across, first): label.flip(flips).transpose(1, 2) if across else label.flip(flips)
        for flips in ((), (1,), (2,), (1, 2)) for across in (False, True) for first in (0, 2, 4)
    }  # fmt: skip
    ways = {way: volume.roll(way[2], -1) for way, volume in ways.items()}
    drawn = set()
    for _ in range(200):
        sample = VolumePatch(augmentation=Augmentation(turn=1.0, degradation=degradation))(image, label, rng=rng)
        assert sample["mirrored"]
        torch.testing.assert_close(degradation(sample["label"]), sample["image"][:1], rtol=0, atol=1e-6)
        drawn |= {way for way, volume in ways.items() if torch.equal(volume, sample["label"])}
    assert len(drawn) > 20  # of 24; each is missed by 200 draws with a chance of 2e-4


def test_blocks_that_are_no_squares_are_not_laid_across(rng):
    degradation = BlockAverage((4, 2, 1))
    label = torch.from_numpy(rng.uniform(-1, 1, (1, 8, 12, 6))).float()
    patch = VolumePatch(augmentation=Augmentation(turn=1.0, degradation=degradation))
    assert {tuple(patch(label.repeat(2, 1, 1, 1), label, rng=rng)["label"].shape) for _ in range(20)} == {(1, 8, 12, 6)}
