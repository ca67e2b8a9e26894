# SPDX-License-Identifier: Apache-2.0
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data import PatchDataset, PrepareScand, ScanPatch, random_contrast, random_scans, scans_of
from scripts.data.random_contrast import painted, recoloured, smooth, varied, with_noise
from scripts.errors import BadInput
from scripts.measurement.channels import FAR, NEAR
from scripts.measurement.slice_profile import SliceProfile
from scripts.measurement.slices import Slices


@pytest.fixture
def volume(rng):
    """As `PrepareScand` gives it: a box of smooth tissue in air."""
    voxels = torch.zeros(1, 70, 64, 76)
    voxels[:, 8:60, 8:56, 8:66] = 0.5 + 0.2 * smooth(torch.from_numpy(rng.standard_normal((52, 48, 58))).float(), 1.5)
    return voxels


def kind(name):
    return torch.tensor([float(random_scans.KINDS.index(name))])


@pytest.mark.parametrize("size", [(40, 48), (32, 36, 40)])
@pytest.mark.parametrize("name", random_scans.KINDS)
def test_samples_have_their_size_and_are_drawn_from_their_numbers_alone(rng, volume, size, name):
    image = (volume * 9).round() if name == "labels" else volume
    seed = int(rng.integers(1 << 30))
    cut = ScanPatch(size, foreground=0.3)  # of nothing but air, two samples are the same
    one, again, other = (cut(image, kind(name), np.random.default_rng(s)) for s in (seed, seed, seed + 1))
    assert {key: tuple(value.shape) for key, value in one.items()} == {
        "image": (5, *size), "label": (1, *size), "base": (1, *size),
    }  # fmt: skip
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["label"], other["label"])
    assert torch.equal(one["image"][:1], one["base"])
    assert all(value.isfinite().all() for value in one.values())


def test_a_sample_is_the_measurement_of_its_truth(rng, volume, monkeypatch):
    """Without noise, far from the ends of a patch: what its slices measure of base and label is the same."""
    for share in ("GAPS", "GAUSSIAN"):
        monkeypatch.setattr(random_scans, share, 0.0)
    monkeypatch.setattr(random_scans, "with_noise", lambda measurement, rng: measurement)
    monkeypatch.setattr(random_scans, "_drawn_slices", lambda kind, rng: [None, None, Slices(1, 4.0, 4.0, 2.0, 1)])
    sample = ScanPatch((24, 24, 64))(volume, kind("volume"), rng)
    label, base = sample["label"], sample["base"]
    distance = sample["image"][1, 0, 0] * NEAR  # 1.5 0.5 0.5 1.5 within each slice
    first = next(at for at in range(1, 8) if distance[at - 1] > 1 and distance[at] > 1)
    operator = SliceProfile([None, None, Slices.covering(12, 4)])
    part = (..., slice(first + 4, first + 52))
    torch.testing.assert_close(operator.measure(base[part]), operator.measure(label[part]), rtol=0, atol=1e-4)
    assert not torch.equal(base, label)


def test_volumes_sharp_within_their_slices_alone_give_those_slices(rng, monkeypatch):
    """Their third axis is cut across, never averaged: each image is one of the slices, which here are even."""
    for change in ("recoloured", "varied", "with_noise"):
        monkeypatch.setattr(random_scans, change, lambda volume, rng: volume)
    values = torch.from_numpy(rng.uniform(0.2, 1, 9)).float()
    images = [ScanPatch((32, 32))(values.expand(1, 64, 64, 9), kind("slices"), rng)["label"] for _ in range(20)]
    for image in images:
        assert image.max() - image.min() < 1e-5
    ratios = [float((image.mean() + 1) / random_scans.SPAN) for image in images]  # of a slice's value: the gain
    assert len({round(ratio, 4) for ratio in ratios}) > 5


@pytest.mark.parametrize("name", random_scans.KINDS)
def test_whole_scans_lie_as_their_volume_does(rng, volume, name):
    """Air stays where it was, and slices repeat, unless the volume is a scan already."""
    image = (volume * 9).round() if name == "labels" else volume
    scan = random_scans.drawn_whole(image, kind(name), rng)
    assert scan.shape == volume.shape[1:] and scan.isfinite().all()
    far = torch.nn.functional.max_pool3d((volume > 0).float(), 17, 1, 8)[0] == 0
    assert far.any() and scan[far].abs().median() < 0.1 < scan[30:40, 28:36, 34:42].mean()
    different = len(scan.unique()) / float((scan > 0).sum())
    assert different < 0.8 if name != "slices" else different > 0.9


def test_thickness_and_spacing_are_what_the_networks_are_told(rng, volume):
    seen = set()
    for _ in range(30):
        sample = ScanPatch((24, 24))(volume, kind("volume"), rng)
        thickness, spacing = (float(sample["image"][channel, 0, 0]) * FAR for channel in (2, 3))
        assert 1.8 - 1e-4 <= spacing <= random_scans.THICKEST + 1e-4
        assert 0.7 * spacing - 1e-4 <= thickness <= spacing + 1e-4
        seen.add(round(spacing, 3))
    assert len(seen) > 10


def test_contrasts_are_new_and_air_stays_dark(rng, volume):
    head = volume[0]
    air = head == 0
    drawn = [recoloured(head, rng) for _ in range(8)]
    assert all((one[air] == 0).all() for one in drawn)
    assert len({round(float(one[35, 32, 38]), 5) for one in drawn}) == 8
    labels = (head * 9).round()
    paint = painted(labels, rng)
    assert paint[:3, :3, :3].abs().max() < 1e-6
    assert varied(paint, rng).isfinite().all()
    bright = varied(head, rng)
    assert (bright[bright > 0] <= 1.0 + 1e-5).float().mean() > 0.995


def test_noise_is_rician(rng, monkeypatch):
    """Where nothing is, its mean is sqrt(pi / 2) of its level; with much signal it is none."""
    monkeypatch.setattr("scripts.data.random_contrast.NOISE", 1.0)
    zero = torch.zeros(60, 60, 60)
    state = rng.bit_generator.state
    rng.random()
    level = rng.uniform(0, random_contrast.LOUDEST)
    rng.bit_generator.state = state
    noisy = with_noise(zero, rng)
    assert float(noisy.mean()) == pytest.approx(level * np.sqrt(np.pi / 2), rel=0.02)
    assert float((with_noise(zero + 1, rng) - 1).mean()) == pytest.approx(0, abs=1e-3)


def test_a_datalist_becomes_patches(rng, tmp_path, volume):
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image((volume[0].numpy() * 200).astype(np.uint8), np.diag([-1, 1, 1, 1])), path)
    listed = {"training": [{"image": str(path), "kind": "volume"}] * 2}
    (tmp_path / "scans.json").write_text(json.dumps(listed))
    cases = scans_of(str(tmp_path / "scans.json"))
    dataset = PatchDataset(cases, PrepareScand(), cache_dir=tmp_path / "cache", patch=ScanPatch((24, 24)), samples=4)
    assert len(list((tmp_path / "cache").glob("*.pt"))) <= 1
    assert dataset[0]["image"].shape == (5, 24, 24) and dataset[3]["index"] == 3
    assert len(list((tmp_path / "cache").glob("*.pt"))) == 1
    (tmp_path / "scans.json").write_text("{}")
    with pytest.raises(BadInput, match="lists no volumes for training"):
        scans_of(str(tmp_path / "scans.json"))
    listed["training"][0]["kind"] = "blurred"
    (tmp_path / "scans.json").write_text(json.dumps(listed))
    with pytest.raises(BadInput, match="of kind blurred; choose one of volume, slices, labels"):
        scans_of(str(tmp_path / "scans.json"))
