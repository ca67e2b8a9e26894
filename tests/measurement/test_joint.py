# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from scripts.measurement.degradations import BlockAverage, ThickScans
from scripts.measurement.joint import AcquiredScan, errors, project_jointly
from scripts.measurement.slice_profile import SliceProfile
from scripts.measurement.slices import Slices

FINE = np.eye(4)


def coarse(factors):
    """The affine of whole blocks of a volume of 1 mm whose first voxel lies at 0."""
    affine = np.diag([*map(float, factors), 1.0])
    affine[:3, 3] = (np.array(factors) - 1) / 2
    return affine


def turned(affine, rng, degrees=20.0):
    """Turned about an axis drawn anew, around the middle of a volume of 24 voxels a side."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis) * np.radians(degrees)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.linalg.norm([x, y, z])
    turn = np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * cross @ cross
    around = np.eye(4)
    around[:3, :3] = turn
    around[:3, 3] = 11.5 - turn @ np.full(3, 11.5)
    return around @ affine


@pytest.fixture
def volume(rng):
    return torch.from_numpy(gaussian_filter(rng.standard_normal((24, 24, 24)), 1.0))


@pytest.mark.parametrize("factors", [(1, 1, 4), (4, 1, 1), (2, 4, 1), (4, 4, 4)])
def test_whole_blocks_on_the_volumes_axes_are_their_average(volume, factors):
    shape = [24 // factor for factor in factors]
    scan = AcquiredScan((coarse(factors), shape), (FINE, volume.shape))
    torch.testing.assert_close(scan.measure(volume), BlockAverage(factors).measure(volume), rtol=0, atol=1e-12)
    assert scan.covered.all()


def test_thickness_makes_gaps_as_a_slice_profile_does(volume):
    scan = AcquiredScan((coarse((1, 1, 6)), (24, 24, 4)), (FINE, volume.shape), thickness=4.0)
    expected = SliceProfile([None, None, Slices.covering(4, 6, 4)]).measure(volume)
    torch.testing.assert_close(scan.measure(volume), expected, rtol=0, atol=1e-12)


def test_gaussian_slices_are_nearly_those_of_a_slice_profile(volume):
    """Which takes voxels as even, where this one interpolates."""
    scan = AcquiredScan((coarse((1, 1, 4)), (24, 24, 6)), (FINE, volume.shape), profile="gaussian")
    expected = SliceProfile([None, None, Slices.covering(6, 4, 4, "gaussian")]).measure(volume)
    inside = (..., slice(1, 5))
    assert scan.covered.all()  # the outer ones as well, which are wider than the volume's end
    torch.testing.assert_close(scan.measure(volume)[inside], expected[inside], rtol=0, atol=0.1 * float(volume.std()))


@pytest.mark.parametrize("sides", [(0.9, 0.9, 5.0), (0.7, 0.7, 4.0), (1.0, 1.0, 4.6)])
def test_the_outer_slices_of_a_clinics_scan_count(rng, sides):
    """On finer voxels of its own, as AsScanned makes them: every slice lies within, and one that begins before does not."""
    fine = [sides[0], sides[1], sides[2] / 6]
    number = 6 * 6
    volume = torch.from_numpy(rng.standard_normal((12, 12, number)))
    affine, scan_affine = (np.diag([*mm, 1.0]) for mm in (fine, sides))
    scan_affine[2, 3] = (sides[2] - fine[2]) / 2
    scan = AcquiredScan((scan_affine, (12, 12, 6)), (affine, volume.shape))
    assert scan.covered.all()
    torch.testing.assert_close(scan.measure(volume), BlockAverage((1, 1, 6)).measure(volume), rtol=0, atol=1e-9)
    scan_affine[2, 3] -= sides[2] / 2
    shifted = AcquiredScan((scan_affine, (12, 12, 6)), (affine, volume.shape))
    assert not shifted.covered[..., 0].any() and shifted.covered[..., 1:].all()


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_the_adjoint_is_one_wherever_a_scan_lies(rng, volume, profile):
    affine = turned(coarse((1, 3.3, 1)), rng)
    scan = AcquiredScan((affine, (20, 7, 22)), (FINE, volume.shape), thickness=2.5, profile=profile)
    assert 0.2 < float(scan.covered.double().mean()) < 1
    y = torch.from_numpy(rng.standard_normal((20, 7, 22)))
    one, other = float((scan.measure(volume) * y).sum()), float((volume * scan.adjoint(y)).sum())
    assert one == pytest.approx(other, rel=1e-10)


def test_scans_that_share_the_volumes_axes_are_projected_as_by_the_closed_form(rng, volume):
    blocks = [(1, 1, 4), (1, 4, 1), (4, 1, 1)]
    scans = [AcquiredScan((coarse(b), [24 // f for f in b]), (FINE, volume.shape)) for b in blocks]
    closed, other = ThickScans(blocks), torch.from_numpy(rng.standard_normal((24, 24, 24)))
    result = project_jointly(other, scans, [BlockAverage(b).measure(volume) for b in blocks], iterations=200)
    expected = closed.project(other, closed(volume))
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-4 * float(volume.max() - volume.min()))


def test_oblique_scans_are_kept_and_bring_the_truth_nearer(rng, volume):
    grids = [(coarse((1, 1, 4)), (24, 24, 6)), (turned(coarse((1, 4, 1)), rng, 7), (24, 6, 24)),
             (turned(coarse((4, 1, 1)), rng, 7), (6, 24, 24))]  # fmt: skip
    scans = [AcquiredScan(grid, (FINE, volume.shape)) for grid in grids]
    measured = [scan.measure(volume) for scan in scans]
    distance = []
    for number in (1, 2, 3):
        result = project_jointly(torch.zeros_like(volume), scans[:number], measured[:number])
        assert max(errors(result, scans[:number], measured[:number])) < 1e-3
        distance.append(float((result - volume).norm()))
    assert distance[0] > 1.2 * distance[1] > 1.2 * distance[2]


def test_scans_that_contradict_each_other_are_met_half_way(volume):
    grid = (coarse((1, 1, 4)), (24, 24, 6))
    scans = [AcquiredScan(grid, (FINE, volume.shape))] * 2
    y = scans[0].measure(volume)
    result = project_jointly(volume, scans, [y + 1, y - 1])
    torch.testing.assert_close(scans[0].measure(result), y, rtol=0, atol=1e-6)
    assert errors(result, scans, [y + 1, y - 1])[0] == pytest.approx(1 / float(y.max() - y.min()), rel=1e-3)


def test_damping_weighs_scans_against_the_volume(rng, volume):
    """One scan that is the volume itself: the closed form is a weighted mean."""
    scan = AcquiredScan((FINE, volume.shape), (FINE, volume.shape))
    other = torch.from_numpy(rng.standard_normal((24, 24, 24)))
    result = project_jointly(other, [scan], [volume], damping=0.25)
    torch.testing.assert_close(result, (volume + 0.25 * other) / 1.25, rtol=0, atol=1e-9)
