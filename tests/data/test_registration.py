# SPDX-License-Identifier: Apache-2.0
import json
import re

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy.spatial.transform import Rotation

from scripts.data import registration
from scripts.data.grid import CropToContentd, RestoreGridd
from scripts.data.registration import rigid_motion
from scripts.data.volumes import LoadVolumesd, read_volume
from scripts.errors import BadInput
from scripts.measurement import BlockAverage

MM, DEGREES = 0.3, 0.5  # a seventh of the last step's voxels; half a degree moves the rim of these small heads by as much


class Head:
    """Tissues as a function of space, so that a moved head is sampled, not interpolated."""

    def __init__(self, rng):
        self.centres = rng.uniform(-50, 50, (40, 3))
        self.widths = rng.uniform(6, 14, 40)
        self.weights = rng.uniform(-1, 1, 40)

    def __call__(self, points, contrast):
        """Points (..., 3) in mm -> intensities; the two contrasts order tissues differently."""
        squares = (points**2).sum(-1)[..., None] - 2 * points @ self.centres.T + (self.centres**2).sum(-1)
        blobs = np.exp(-squares / (2 * self.widths**2)) @ self.weights
        value = {"t1": 300 + 150 * np.tanh(blobs), "flair": 400 + 250 * np.cos(3 * np.tanh(blobs))}[contrast]
        inside = ((points / [68, 84, 62]) ** 2).sum(-1) < 1
        return np.where(inside, value, 0).astype(np.float32)

    def scan(self, path, contrast, affine, shape, motion=None):
        """Saved as a head that stands elsewhere by `motion` (4x4, from where it was to where it is)."""
        world = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
        if motion is not None:
            world = nib.affines.apply_affine(np.linalg.inv(motion), world)
        nib.save(nib.Nifti1Image(self(world, contrast), affine), path)
        return str(path)


def centred(spacing, shape, turn=None):
    affine = np.diag([*spacing, 1.0])
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def rigid(rng, degrees, mm):
    axis, way = rng.normal(size=(2, 3))
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(axis / np.linalg.norm(axis) * degrees, degrees=True).as_matrix()
    motion[:3, 3] = way / np.linalg.norm(way) * mm
    return motion


FIXED = (centred((3, 3, 3), (54, 62, 50)), (54, 62, 50))
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def head(rng):
    return Head(rng)


@pytest.fixture
def few_samples(monkeypatch):
    """For what does not depend on how exactly a motion is found."""
    monkeypatch.setattr(registration, "SAMPLES", 20_000)


@pytest.mark.parametrize(("degrees", "mm"), [(0, 0), (0, 25), (12, 0), (8, 15)])
def test_a_known_motion_is_recovered(head, rng, tmp_path, degrees, mm):
    """Between contrasts, on another grid that cuts the head, in its own orientation and voxels."""
    motion, shape = rigid(rng, degrees, mm), (40, 70, 60)
    own = centred((3.5, 2.6, 2.2), shape, rigid(rng, 20, 0)[:3, :3] @ np.diag([-1, 1, 1]))
    fixed = read_volume(head.scan(tmp_path / "t1.nii", "t1", *FIXED))
    found = rigid_motion(fixed, read_volume(head.scan(tmp_path / "flair.nii", "flair", own, shape, motion)))
    error = np.linalg.inv(motion) @ FLIP @ matrix(found.transform) @ FLIP
    assert np.linalg.norm(error[:3, 3]) < MM  # of the head's centre
    assert np.degrees(np.linalg.norm(Rotation.from_matrix(error[:3, :3]).as_rotvec())) < DEGREES
    assert found.degrees == pytest.approx(degrees, abs=DEGREES) and found.mm == pytest.approx(mm, abs=MM)
    assert found.after > found.before or (degrees, mm) == (0, 0)


def matrix(transform):
    """4x4 of what a transform does to points."""
    points = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(point) for point in points.tolist()])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (moved[1:] - moved[0]).T, moved[0]
    return affine


@pytest.mark.usefixtures("few_samples")
def test_a_motion_is_the_same_every_time(head, rng, tmp_path):
    fixed = read_volume(head.scan(tmp_path / "a.nii", "t1", *FIXED))
    moving = read_volume(head.scan(tmp_path / "b.nii", "flair", *FIXED, rigid(rng, 5, 5)))
    first, again = rigid_motion(fixed, moving), rigid_motion(fixed, moving)
    assert np.array_equal(matrix(first.transform), matrix(again.transform))


@pytest.mark.usefixtures("few_samples")
def test_volumes_of_other_places_are_refused(head, tmp_path):
    elsewhere = FIXED[0].copy()
    elsewhere[0, 3] += 500
    paths = [head.scan(tmp_path / "t1.nii", "t1", *FIXED), str(tmp_path / "flair.nii")]
    nib.save(nib.Nifti1Image(nib.load(paths[0]).get_fdata(), elsewhere), paths[1])
    with pytest.raises(BadInput, match="lie up to 500 mm apart in space; add --resample, or --register"):
        LoadVolumesd(["image"])({"case": "x", "image": paths})
    with pytest.raises(BadInput, match=r"flair\.nii and t1\.nii do not overlap in space"):
        LoadVolumesd(["image"], resample=True)({"case": "x", "image": paths})
    with pytest.raises(BadInput, match="cannot be registered: 500 mm"):
        LoadVolumesd(["image"], register=True)({"case": "x", "image": paths})


def test_resampling_does_what_another_resampler_does(head, rng, tmp_path):
    shape = (44, 58, 60)
    own = centred((3.3, 2.9, 2.3), shape, rigid(rng, 25, 0)[:3, :3])
    paths = {
        "image": [head.scan(tmp_path / "t1.nii", "t1", *FIXED), head.scan(tmp_path / "flair.nii", "flair", own, shape)],
        "mask": str(tmp_path / "seg.nii"),
    }
    nib.save(nib.Nifti1Image((nib.load(paths["image"][1]).get_fdata() > 400).astype(np.uint8), own), paths["mask"])
    data = LoadVolumesd(["image", "mask"], masks=["mask"], resample=True)({"case": "x", **paths})
    assert np.array_equal(data["image"][0], nib.load(paths["image"][0]).get_fdata(dtype=np.float32))
    assert data["image"].affine.numpy().tolist() == FIXED[0].tolist()
    for path, ours, order in ((paths["image"][1], data["image"][1], 1), (paths["mask"], data["mask"][0], 0)):
        theirs = resample_from_to(nib.load(path), (FIXED[1], FIXED[0]), order=order).get_fdata()
        index = nib.affines.apply_affine(np.linalg.inv(own) @ FIXED[0], np.moveaxis(np.indices(FIXED[1]), 0, -1))
        inside = ((index >= 0) & (index <= np.array(shape) - 1)).all(-1)
        beyond = ((index < -0.5) | (index > np.array(shape) - 0.5)).any(-1)
        difference = np.abs(ours.numpy() - theirs)[inside]
        assert not ours.numpy()[beyond].any()  # the background
        # Rounding decides a few voxels of a label map, whose edges fall between two voxels.
        assert (difference > 0.01).mean() < (0.002 if order == 0 else 1e-9)
    lines = json.loads(data["image"].meta["doubts"])
    assert len(lines) == 2 and all("was resampled onto the grid of t1.nii; it covers" in line for line in lines)


@pytest.mark.usefixtures("few_samples")
def test_a_condition_is_moved_onto_the_fine_grid_of_a_sagittal_scan(head, rng, tmp_path):
    """The wanted volume is known: the other contrast, sampled where the result lies."""
    motion, shape = rigid(rng, 6, 8), (16, 84, 66)
    coarse = centred((10, 2.5, 2.5), shape)
    scans = [head.scan(tmp_path / "t1.nii", "t1", coarse, shape), head.scan(tmp_path / "flair.nii", "flair", *FIXED, motion)]
    load = LoadVolumesd(["image"], BlockAverage((1, 1, 4)), register=True)
    data = CropToContentd(["image"], BlockAverage((1, 1, 4)))(load({"case": "x", "image": scans}))
    back = RestoreGridd()({**data, "pred": data["image"]})["pred"]
    assert back.shape == (2, 64, 84, 66)
    world = nib.affines.apply_affine(back.affine.numpy(), np.moveaxis(np.indices(back.shape[1:]), 0, -1))
    truth = head(world, "flair")
    there, moved = truth > 0, back[1].numpy()
    unmoved = nib.load(scans[1])
    unmoved = resample_from_to(unmoved, (back.shape[1:], back.affine.numpy()), order=1).get_fdata()
    errors = [np.abs(volume - truth)[there].mean() for volume in (moved, unmoved)]
    assert errors[0] < errors[1] / 2  # what is left is interpolation of 3 mm voxels
    axial, line = json.loads(data["image"].meta["doubts"])
    found = re.fullmatch(
        r"flair\.nii was moved (\S+) mm and (\S+) degrees onto t1\.nii \(mutual information (\S+) before, (\S+) after\).*", line
    )
    mm, degrees, before, after = (float(number) for number in found.groups())
    assert (mm, degrees) == (pytest.approx(8, abs=0.6), pytest.approx(6, abs=0.6)) and after > before
    assert "sagittal slices" in axial


@pytest.mark.usefixtures("few_samples")
def test_a_label_map_moves_with_the_scan_it_was_drawn_on(head, rng, tmp_path):
    motion, own = rigid(rng, 5, 12), centred((3, 3, 3), (50, 60, 48))
    paths = {
        "image": head.scan(tmp_path / "t1.nii", "t1", *FIXED),
        "label": head.scan(tmp_path / "flair.nii", "flair", own, (50, 60, 48), motion),
        "mask": str(tmp_path / "seg.nii"),
    }
    nib.save(nib.Nifti1Image((nib.load(paths["label"]).get_fdata() > 0).astype(np.uint8), own), paths["mask"])
    data = LoadVolumesd(["image", "label", "mask"], masks=["mask"], register=True)(paths)
    brain, mask = data["image"][0] > 0, data["mask"][0] > 0
    dice = 2 * (brain & mask).sum() / (brain.sum() + mask.sum())
    assert dice > 0.97  # without the motion about 0.9
    unmoved = LoadVolumesd(["image", "mask"], masks=["mask"], resample=True)(paths)["mask"][0] > 0
    assert 2 * (brain & unmoved).sum() / (brain.sum() + unmoved.sum()) < 0.95


@pytest.mark.usefixtures("few_samples")
def test_a_volume_in_place_is_not_touched(head, tmp_path):
    paths = [head.scan(tmp_path / "t1.nii", "t1", *FIXED), head.scan(tmp_path / "flair.nii", "t1", *FIXED)]
    image = LoadVolumesd(["image"], resample=True, register=True)({"image": paths})["image"]
    assert np.array_equal(image[1], image[0])
    assert "flair.nii was moved 0.0" in image.meta["doubts"]
