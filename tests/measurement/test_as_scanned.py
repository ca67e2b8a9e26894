# SPDX-License-Identifier: Apache-2.0
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from scripts.data import CropToContentd, LoadVolumesd, RestoreGridd
from scripts.diffusion import Diffusion, NoiseSchedule, sample_ddim
from scripts.errors import BadInput
from scripts.inferers import FusedScoreInferer
from scripts.measurement import AsScanned, Task
from scripts.measurement.slices import Slices


class Silent(nn.Module):
    """Adds nothing, so that the result is the interpolated measurement."""

    def forward(self, x, x_t=None, timesteps=None):
        return torch.zeros_like(x[:, :1])


def scan(path, rng, shape, spacing, axes=(0, 1, 2), *, thickness=None):
    """A head of noise in the middle, oblique, with its axes in any order and direction."""
    voxels = np.zeros(shape, dtype=np.float32)
    box = tuple(slice(side // 5, side - side // 5) for side in shape)
    voxels[box] = rng.uniform(100, 300, voxels[box].shape)
    turn = np.eye(3)[:, list(axes)] * rng.choice([-1, 1], 3)
    angle = 0.1
    oblique = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = oblique @ turn * spacing, rng.uniform(-50, 50, 3)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    if thickness is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"SliceThickness": thickness}))
    return voxels, affine


def restored(path, degradation):
    load = LoadVolumesd(["image"], degradation)
    data = CropToContentd(["image"], degradation)(load({"image": str(path)}))
    inferer = FusedScoreInferer(Diffusion(NoiseSchedule("cosine")), sample_ddim, steps=1, degradation=degradation)
    data["pred"] = inferer(data["image"][None], Silent())[0]
    return data["image"], RestoreGridd()(data)["pred"]


@pytest.mark.parametrize("thick", [0, 1, 2])
@pytest.mark.parametrize("thickness", [None, 4.1])
def test_a_scan_is_measured_again_exactly_whatever_its_slices(rng, tmp_path, thick, thickness):
    spacing, shape = [0.9, 0.9, 0.9], [27, 31, 24]
    spacing[thick], shape[thick] = 5.0, 9
    voxels, affine = scan(tmp_path / "t2.nii.gz", rng, shape, spacing, rng.permutation(3), thickness=thickness)
    image, result = restored(tmp_path / "t2.nii.gz", AsScanned())
    ratio = round(5 / 0.9, 5)
    axis = Slices.covering(9, ratio, None if thickness is None else thickness / 0.9)
    lines = np.moveaxis(np.asarray(result[0]), thick, -1)
    flipped = np.sign(result.affine.numpy()[:3, thick] @ affine[:3, thick]) < 0
    assert not flipped and lines.shape[-1] == axis.voxels
    turned = "".join(nib.orientations.aff2axcodes(affine))[thick] in "LPI"  # slices are counted in RAS
    matrix = axis.matrix()[::-1, ::-1] if turned else axis.matrix()
    np.testing.assert_allclose(lines @ matrix.T, np.moveaxis(voxels, thick, -1), atol=300e-5)
    np.testing.assert_allclose(np.linalg.norm(result.affine.numpy()[:3, :3], axis=0), 0.9, rtol=1e-6)
    doubts = json.loads(image.meta["doubts"])
    assert any("does not say how thick" in line for line in doubts) == (thickness is None)


def test_few_slices_are_kept_as_exactly_as_many(rng, tmp_path):
    """Fewer voxels than the networks need: the grid is filled up for them, and the result is cut."""
    voxels, affine = scan(tmp_path / "t1.nii.gz", rng, (9, 40, 5), (1.0, 1.0, 2.2))
    _, result = restored(tmp_path / "t1.nii.gz", AsScanned())
    axis = Slices.covering(5, 2.2)
    assert result.shape == (1, 9, 40, axis.voxels)
    turned = "".join(nib.orientations.aff2axcodes(affine))[2] == "I"
    matrix = axis.matrix()[::-1, ::-1] if turned else axis.matrix()
    np.testing.assert_allclose(np.asarray(result[0]) @ matrix.T, voxels, atol=300e-5)


def test_a_thickness_belongs_to_the_one_axis_that_is_thick():
    axes = AsScanned(1.0).sampling((20, 20, 20), (4.0, 4.0, 4.0), 5.0)
    assert [axis.thickness for axis in axes] == [4, 4, 4]
    assert AsScanned(1.0).sampling((20, 20, 20), (4.0, 4.0001, 4.0), 5.0)[1].thickness == pytest.approx(4.0001)
    assert AsScanned().sampling((20, 20, 20), (1.0, 1.0, 4.0), 5.0)[2].thickness == 5
    assert AsScanned().sampling((20, 20, 20), (1.0, 1.0, 4.0), 0.004)[2].thickness == 4


def test_what_changes_evenly_in_space_stays_where_it_is(rng, tmp_path):
    """In millimetres, at real ratios: voxel centres of the result lie where its affine says."""
    shape, spacing = (24, 25, 14), (1.0, 1.0, 3.7)
    _, affine = scan(tmp_path / "t1.nii.gz", rng, shape, spacing, rng.permutation(3))
    slope = rng.uniform(1, 2, 3)
    place = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)) @ slope
    nib.save(nib.Nifti1Image((place + 500).astype(np.float32), affine), tmp_path / "t1.nii.gz")
    _, result = restored(tmp_path / "t1.nii.gz", AsScanned())
    fine = nib.affines.apply_affine(result.affine.numpy(), np.moveaxis(np.indices(result.shape[1:]), 0, -1)) @ slope + 500
    error = np.abs(np.asarray(result[0]) - fine)[:, :, 10:-10]
    assert error.max() < 0.25 * 3.7 * slope.max()  # cubic convolution with a = -0.75 sways a little
    assert abs(error.mean()) < 0.1 * 3.7 * slope.max()


@pytest.mark.parametrize(
    ("spacing", "wanted", "expected"),
    [
        ((0.5, 0.5, 6.5), "isotropic", (None, None, 6.0)),  # not finer than a sixth
        ((1.0, 1.0, 5.0), "isotropic", (None, None, 5.0)),
        ((1.0, 1.1, 1.33), "isotropic", (None, None, 1.33)),
        ((4.0, 4.0, 4.0), "isotropic", (4.0, 4.0, 4.0)),
        ((1.5, 1.5, 1.5), "isotropic", (1.5, 1.5, 1.5)),
        ((2.0, 1.0, 6.0), 1.0, (2.0, None, 6.0)),
        ((1.0, 1.0, 1.0), 0.5, (2.0, 2.0, 2.0)),
    ],
)
def test_spacing_follows_from_the_header_or_the_wish(spacing, wanted, expected):
    axes = AsScanned(wanted).sampling((20, 20, 20), spacing, 0.0)
    assert [None if axis is None else pytest.approx(axis.spacing) for axis in axes] == list(expected)


@pytest.mark.parametrize(
    ("spacing", "wanted", "line"),
    [
        ((1.0, 1.0, 1.0), "isotropic", "are fine already: --spacing 0.5 asks"),
        ((1.0, 1.0, 10.0), 0.9, "cut into 11.1, 8 at most are possible: leave --spacing out, for isotropic is"),
        ((10.6, 10.6, 10.6), 1.0, "would be cut into 10.6; --spacing 1.33 is the finest"),
        ((1.0, 1.0, 6.0), 2.0, "partly finer than 2 mm; --spacing 1 loses nothing, nor does isotropic"),
        ((0.5, 0.5, 6.0), 1.0, "partly finer than 1 mm; isotropic loses nothing"),
    ],
)
def test_what_cannot_be_refined_is_refused_with_the_way_out(spacing, wanted, line):
    with pytest.raises(BadInput, match=line):
        AsScanned(wanted).sampling((20, 20, 20), spacing, 0.0)


@pytest.mark.parametrize("coarse", [7.1, 9.3, 10.6, 15.7])
def test_the_finest_spacing_that_is_named_is_taken(coarse):
    with pytest.raises(BadInput) as refusal:
        AsScanned(0.1).sampling((20, 20, 20), (coarse,) * 3, 0.0)
    finest = float(str(refusal.value).split("--spacing ")[1].split()[0])
    assert max(axis.spacing for axis in AsScanned(finest).sampling((20, 20, 20), (coarse,) * 3, 0.0)) <= 8


@pytest.mark.parametrize(
    ("spacing", "options", "thickness", "lines"),
    [
        ((1.0, 1.0, 5.0), {}, 0.0, ["does not say how thick its slices are: taken as 5 mm without gaps"]),
        ((1.5, 1.5, 6.0), {"spacing": 1.0}, 0.0, ["does not say how thick its slices are: taken as 6 mm without gaps"]),
        ((1.0, 1.0, 5.0), {}, 4.0, []),
        (
            (1.0, 1.0, 5.0),
            {"thickness": 4.0},
            5.0,
            ["was taken as 4 mm thick, as --thickness says; its file says 5 mm"],
        ),
        ((1.0, 1.0, 5.0), {"thickness": 4.0}, 4.03, []),
        ((1.0, 1.0, 5.0), {"thickness": 4.0}, 0.0, []),
        ((1.0, 1.0, 5.0), {"thickness": 4.0}, float("nan"), []),
        ((1.0, 1.0, 5.0), {"thickness": 0.1}, 4.0, ["has slices of 0.1 mm every 5 mm, which cannot be"]),
        (
            (1.0, 1.0, 5.0),
            {},
            float("nan"),
            ["has a JSON beside it of which no thickness of slices can be read: taken as 5 mm; --thickness MM tells better"],
        ),
        ((1.0, 1.0, 5.0), {}, 0.005, ["has slices of 0.005 mm every 5 mm, which cannot be: taken as 5 mm thick"]),
        ((1.0, 1.0, 5.0), {}, 1.0, ["has slices of 1 mm every 5 mm: 80% of it was not measured; --thickness MM tells better"]),
        ((1.0, 1.0, 5.0), {}, 7.0, ["has slices of 7 mm every 5 mm, which overlap"]),
        (
            (1.0, 1.0, 2.0),
            {},
            4.0,
            ["has slices of 4 mm every 2 mm, which overlap", "overlap so much that its result may miss"],
        ),
        ((4.0, 4.0, 4.0), {}, 2.0, []),
        (
            (4.0, 4.0, 4.0),
            {"thickness": 2.0},
            0.0,
            ["coarse along several axes alike, so that --thickness says nothing of them"],
        ),
    ],
)
def test_what_is_assumed_of_slices_or_odd_about_them_is_said(spacing, options, thickness, lines):
    degradation = AsScanned(**options)
    axes = degradation.sampling((20, 20, 20), spacing, thickness)
    found = degradation.doubts(axes, spacing, thickness)
    assert len(found) == len(lines) and all(line in one for line, one in zip(lines, found, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": "fine"}, {"spacing": -1}, {"thickness": 0}, {"profile": "sinc"}, {"simulated": [1, 1]},
        {"simulated": [1, 1, 4], "gap": 1},
    ],
)  # fmt: skip
def test_settings_that_are_none_are_refused(options):
    with pytest.raises(BadInput):
        AsScanned(**options)


def test_a_simulated_measurement_is_of_the_slices_that_fit(rng):
    degradation = AsScanned(simulated=(1, 1, 6.5), gap=0.2)
    x = torch.from_numpy(rng.standard_normal((1, 12, 12, 40)))
    operator = degradation.on(x.shape[1:])
    axis = operator.axes[2]
    assert operator.axes[:2] == (None, None) and (axis.number, axis.voxels) == (6, 40)
    assert axis.thickness == pytest.approx(5.2)
    again = operator.project(torch.zeros_like(x), operator(x))
    torch.testing.assert_close(operator.measure(again), operator.measure(x), rtol=0, atol=1e-9)
    with pytest.raises(BadInput, match="--set simulated="):
        AsScanned().on((12, 12, 40))


def test_records_keep_how_a_task_measures(rng):
    degradation = AsScanned(0.8, 4.0, profile="gaussian", simulated=(1, 1, float(rng.uniform(2, 7))), gap=0.1)
    task = Task(["flair"], "flair", degradation)
    assert task.kind == "slices as scanned" and task.measured and task.scans
    content = json.loads(json.dumps(task.content()))
    again = Task.of({"task": content})
    assert again == task and again.degradation.content() == degradation.content()
    assert Task(["flair"], "flair", AsScanned()).title == "slices as scanned of flair"
    assert Task(["flair"], "flair", AsScanned()) != task


def test_a_volume_that_says_nothing_of_its_slices_is_refused():
    with pytest.raises(BadInput, match="read it with LoadVolumesd"):
        AsScanned().of(torch.zeros(1, 1, 20, 20, 20))
