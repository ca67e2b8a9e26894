# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from scripts.report.planes_figure import close_up_figure, planes_figure

SIDES = (24, 28, 32)  # left-right, back-front, feet-head


@pytest.fixture
def head(rng):
    voxels = np.zeros(SIDES)
    voxels[2:-2, 2:-2, 2:-2] = rng.uniform(0.3, 0.5, (20, 24, 28))
    return voxels


def draw(tmp_path, volumes, title=""):
    planes_figure(volumes, tmp_path / "figure.png", title)
    return imread(tmp_path / "figure.png")[..., :3]


def marked_panels(tmp_path, head, place):
    """Where a bright spot appears in the right of two columns: (row of panels, height within the panel from 0 below to 1)."""
    marked = head.copy()
    marked[place] = 0.6
    before, after = (draw(tmp_path, {"truth": head, "other": other}) for other in (head, marked))
    changed, shown = np.abs(after - before).max(axis=2) > 0.05, after.max(axis=2) > 0.1
    middle = shown.shape[1] // 2
    assert not changed[:, :middle].any()
    lines = np.flatnonzero(shown[:, middle:].sum(axis=1) > 0.3 * middle)  # rows of pixels with image: panels, not letters
    panels = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
    panels = [panel for panel in panels if len(panel) > 50]
    assert len(panels) == 3
    found = {}
    for row, panel in enumerate(panels):
        spot = np.flatnonzero(changed[panel].any(axis=1))
        if len(spot):
            found[row] = 1 - spot.mean() / len(panel)
    return found


CENTRE = (slice(10, 14), slice(12, 16))


@pytest.mark.parametrize(("place", "height"), [(slice(25, 29), 0.9), (slice(3, 7), 0.1)], ids=["superior", "inferior"])
def test_the_superior_end_is_up_in_sagittal_and_coronal_panels(place, height, tmp_path, head):
    found = marked_panels(tmp_path, head, (*CENTRE, place))
    assert sorted(found) == [0, 1]  # the middle axial slice does not meet it
    assert found[0] == pytest.approx(height, abs=0.15)
    assert found[1] == pytest.approx(height, abs=0.15)


def test_the_front_is_up_in_the_axial_panel(tmp_path, head):
    found = marked_panels(tmp_path, head, (CENTRE[0], slice(21, 25), slice(14, 18)))
    assert found[2] == pytest.approx(0.9, abs=0.15)
    assert 1 not in found


@pytest.mark.parametrize("plane", [1, 2], ids=["coronal", "axial"])
def test_the_left_of_a_picture_is_the_patients(plane, tmp_path, head):
    """Axes are in RAS: the first one's end is the right."""
    marked = head.copy()
    marked[18:22, 12:16, 14:18] = 0.6
    before, after = (draw(tmp_path, {"truth": head, "other": other}) for other in (head, marked))
    thirds = np.cumsum([0, 32, 32, 28]) / 92 * (1 - 1.2 / 11.1) + 0.6 / 11.1
    rows = slice(*(int(share * len(after)) for share in thirds[plane : plane + 2]))
    spot = np.flatnonzero((np.abs(after - before)[rows].max(axis=2) > 0.05).any(axis=0)) / after.shape[1]
    assert 0.8 < spot.mean() < 1  # of the right one of two columns


@pytest.mark.parametrize("names", [["input"], ["input", "restored", "truth", "error", "uncertainty"]], ids=len)
def test_every_volume_gets_a_column_of_three_planes(names, tmp_path, head, rng):
    volumes = {name: head + rng.normal(0, 0.01, SIDES) * (head > 0) for name in names}
    volumes |= {name: np.abs(volumes[name] - head) for name in ("error", "uncertainty") if name in volumes}
    pixels = draw(tmp_path, volumes, "Synthetic, not for diagnosis.")
    height, width, _ = pixels.shape
    tall = 3 * (32 + 32 + 28) / 28 + 1.2  # inches: planes of one scale, and a title
    assert (height, width) == (pytest.approx(tall * 110, abs=1), pytest.approx(3 * 110 * len(names), abs=1))
    for column in np.array_split(pixels, len(names), axis=1):
        for panel in np.array_split(column[height // 10 : -height // 7], 3):
            assert (panel.max(axis=2) > 0.1).mean() > 0.3
    assert pixels[0, 0].max() == 0  # on black


def test_signed_errors_are_red_and_blue(tmp_path, head):
    error = np.where(np.arange(SIDES[0])[:, None, None] < 12, -0.1, 0.1) * (head > 0)
    pixels = draw(tmp_path, {"truth": head, "error": error})
    right = pixels[:, pixels.shape[1] // 2 :].reshape(-1, 3)
    assert ((right[:, 0] > 0.3) & (right[:, 2] < 0.2)).any()
    assert ((right[:, 2] > 0.3) & (right[:, 0] < 0.2)).any()


def test_thick_voxels_are_drawn_thick(tmp_path, head):
    def height(spacing):
        planes_figure({"truth": head}, tmp_path / "figure.png", spacing=spacing)
        shown = imread(tmp_path / "figure.png")[..., :3].max(axis=2) > 0.1
        rows, columns = (np.flatnonzero(shown[: len(shown) // 3].any(axis=axis)) for axis in (1, 0))
        return np.ptp(rows) / np.ptp(columns)  # of the sagittal panel, with its letters

    assert height((1, 1, 2)) > 1.3 * height((1, 1, 1))


SPACING = (5.0, 5.0, 5.0)  # mm: a head of 120 x 140 mm, of which 60 are enlarged


def halves_changed(tmp_path, head, place):
    """Whether a bright spot changes the upper row of pictures, and the lower."""
    marked = head.copy()
    marked[place] = 0.6
    drawn = []
    for volume in (head, marked):
        close_up_figure({"truth": head, "other": volume}, tmp_path / "close_up.png", spacing=SPACING)
        drawn.append(imread(tmp_path / "close_up.png")[..., :3])
    changed = np.abs(drawn[1] - drawn[0]).max(axis=2) > 0.05
    assert not changed[:, : changed.shape[1] // 2].any()
    below = int(len(changed) * 0.56)  # 140 / 120 of a column's width, then 1, and some for names
    return changed[:below].sum(), changed[below:].sum()


def test_the_left_back_of_the_middle_axial_slice_is_enlarged(tmp_path, head):
    above, below = halves_changed(tmp_path, head, (slice(6, 8), slice(7, 9), slice(14, 18)))
    assert below == pytest.approx(above * (120 / 60) ** 2, rel=0.15)  # areas: the head's width is a column's, then 60 mm are


@pytest.mark.parametrize(
    ("place", "seen"),
    [((slice(17, 19), slice(20, 22), slice(14, 18)), True), ((slice(6, 8), slice(7, 9), slice(24, 28)), False)],
    ids=["right front", "another slice"],
)
def test_what_lies_elsewhere_is_not(place, seen, tmp_path, head):
    above, below = halves_changed(tmp_path, head, place)
    assert bool(above) is seen and not below


def test_a_close_up_is_written_as_its_name_ends(tmp_path, head):
    for ending, kind in (("webp", "WEBP"), ("png", "PNG")):
        close_up_figure({"truth": head}, tmp_path / f"close_up.{ending}", spacing=SPACING)
        with Image.open(tmp_path / f"close_up.{ending}") as picture:
            assert picture.format == kind
