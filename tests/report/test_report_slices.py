# SPDX-License-Identifier: Apache-2.0
import base64
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from scripts.report import slices
from scripts.report.page import _by_axes
from scripts.report.slices import looks, planes

SIDES = (26, 30, 34)  # left-right, back-front, feet-head
ACROSS_AND_UP = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}


@pytest.fixture
def head(rng):
    return rng.uniform(0.2, 0.4, SIDES)  # no background: nothing is cropped away


def picture(plane, name="result"):
    sheet = imread(BytesIO(base64.b64decode(plane.sheets[name].split(",")[1])), format="webp")[..., :3].astype(float)
    height, width = (side // tiles for side, tiles in zip(sheet.shape[:2], (plane.rows, plane.columns), strict=True))
    tiles = sheet.reshape(plane.rows, height, plane.columns, width, 3).swapaxes(1, 2)
    return tiles.reshape(-1, height, width, 3)


def drawn(volumes, affine=None):
    affine = np.eye(4) if affine is None else affine
    return {plane.name: plane for plane in planes(volumes, affine, looks(volumes))}


@pytest.mark.parametrize("name", ACROSS_AND_UP)
def test_left_is_the_patients_left_and_up_is_up(name, head):
    place = (4, 24, 8)
    head[tuple(slice(at - 1, at + 2) for at in place)] = 1.0
    plane = drawn({"result": head})[name]
    tiles = picture(plane).mean(axis=-1)
    tile, row, column = np.unravel_index(tiles.argmax(), tiles.shape)
    assert abs(int(plane.labels[tile].split()[1].rstrip(",")) - place[plane.axis]) <= 1
    across, up = ACROSS_AND_UP[name]
    assert abs(column - place[across]) <= 1
    assert abs(SIDES[up] - 1 - row - place[up]) <= 1


def test_labels_give_the_millimetres_of_the_slice(head):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = -10, -20, -30
    labels = drawn({"result": head}, affine)["axial"].labels
    assert labels[0] == "voxel 0, z = -30 mm"
    assert labels[1] == "voxel 2, z = -24 mm"


def test_thick_voxels_keep_the_heads_proportions(head):
    planes_ = drawn({"result": head}, np.diag([1.0, 1.0, 4.0, 1.0]))
    assert planes_["axial"].aspect == pytest.approx(26 / 30)
    assert planes_["coronal"].aspect == pytest.approx(26 / (4 * 34))


def test_background_is_cropped_but_not_what_only_the_result_has(head):
    truth, result = np.zeros((60, 60, 60)), np.zeros((60, 60, 60))
    truth[20:40, 20:40, 20:40] = 0.5
    result[20:40, 20:40, 20:50] = 0.5
    found = drawn({"result": result, "truth": truth})
    assert found["axial"].aspect == pytest.approx(1)
    assert found["coronal"].aspect == pytest.approx(26 / 36)


def test_an_error_is_red_where_the_result_is_too_bright_and_black_outside(head):
    truth, error = np.zeros((40, 40, 40)), np.zeros((40, 40, 40))
    truth[8:32, 8:32, 8:32] = 0.5
    error[8:20, 8:32, 8:32], error[20:32, 8:32, 8:32] = 0.2, -0.2
    tile = picture(drawn({"result": truth + error, "truth": truth, "error": error})["axial"], "error")[7]
    side = tile.shape[1]
    red, blue = tile[side // 2, side // 3], tile[side // 2, -side // 3]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert tile[1, 1].max() < 30


def test_a_page_that_would_be_too_large_shows_fewer_slices(head, monkeypatch):
    before = len(drawn({"result": head})["axial"].labels)
    monkeypatch.setattr(slices, "LARGEST_BYTES", 1)
    assert len(drawn({"result": head})["axial"].labels) < before / 2


def test_planes_of_loops_are_named_by_their_axes_and_counted_along_the_third(head):
    told = {plane.name: plane for plane in planes({"result": head}, np.eye(4), looks({"result": head}))}
    by_axes = {name: _by_axes(plane, ("x", "y", "t")) for name, plane in told.items()}
    assert {name: plane.name for name, plane in by_axes.items()} == {"axial": "x-y", "coronal": "x-t", "sagittal": "y-t"}
    assert {name: plane.labels[1] for name, plane in by_axes.items()} == {
        "axial": "t = 2",
        "coronal": "y = 2",
        "sagittal": "x = 2",
    }
    assert _by_axes(told["axial"], ("x", "y", "z")) is told["axial"]
