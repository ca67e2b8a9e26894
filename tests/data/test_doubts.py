# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a header or with voxels is refused or told, never passed in silence."""

import gzip
import json
import math
import struct
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest

from scripts.data.doubts import background_alone, distance_mm, far_background, of_slices, of_voxels
from scripts.data.read import checked_header, read_source
from scripts.data.volumes import LoadVolumesd, read_volume
from scripts.data.write import SaveVolumed
from scripts.errors import BadInput

AFFINE = np.array([[2.0, 0, 0, -40], [0, 3, 0, -50], [0, 0, 2.5, -40], [0, 0, 0, 1]])


@pytest.fixture
def head(rng):
    """An egg of tissue from 100 to 900 in nothing."""
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in (18, 20, 19)), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.7
    return np.where(inside, rng.uniform(100, 900, inside.shape), 0).astype(np.float32)


def write(path, voxels, sform=(AFFINE, 1), qform=(None, 0), units="mm", **fields):
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_sform(*sform)
    image.set_qform(*qform)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


def patch(path, offset, form, *values):
    """Overwrite a field of the header on disk: offsets as nifti1.h has them."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def doubts(path):
    """Of the whole file; those of its header alone must be among them."""
    lines = json.loads(read_volume(path).meta["doubts"])
    assert list(checked_header(path).doubts) == lines
    return lines


def result(path, out):
    """The file that a result on the grid of its source becomes."""
    volume = LoadVolumesd()({"case": "a", "image": str(path)})["image"]
    return nib.load(SaveVolumed(["pred"], out, suffixes=["pred"])({"case": "a", "pred": volume})["pred_path"])


def test_a_sound_file_has_no_doubts(tmp_path, head):
    assert doubts(write(tmp_path / "a.nii.gz", head, qform=(AFFINE, 1))) == []


def test_every_flipped_bit_of_the_packed_voxels_is_noticed(tmp_path, head, rng):
    whole = write(tmp_path / "a.nii.gz", head.astype(np.int16)).read_bytes()
    truth = gzip.decompress(whole)
    for at in rng.integers(400, len(whole) - 8, 60):
        damaged = whole[:at] + bytes([whole[at] ^ 1 << rng.integers(8)]) + whole[at + 1 :]
        try:
            assert gzip.decompress(damaged) == truth  # a bit of the padding changes nothing
        except (OSError, EOFError, zlib.error):
            (tmp_path / "bad.nii.gz").write_bytes(damaged)
            with pytest.raises(BadInput, match=r"bad\.nii\.gz: (cannot be read|its|is|holds) .*; "):
                read_volume(tmp_path / "bad.nii.gz")


def test_a_file_is_read_by_its_content_whatever_its_name_says(tmp_path, head):
    plain, packed = write(tmp_path / "a.nii", head), write(tmp_path / "b.nii.gz", head)
    plain.rename(tmp_path / "plain.nii.gz"), packed.rename(tmp_path / "packed.nii")
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name)[0], head)


def test_codes_of_zero_leave_left_and_right_unknown_here_and_in_the_result(tmp_path, head):
    path = write(tmp_path / "a.nii.gz", head, sform=(AFFINE, 0), qform=(AFFINE, 0))
    assert "left and right are unknown" in " ".join(doubts(path))
    header = result(path, tmp_path / "out").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    np.testing.assert_allclose(header["pixdim"][1:4], (2, 3, 2.5))


@pytest.mark.parametrize(("sform", "qform"), [(4, 0), (4, 4), (2, 1), (0, 1), (1, 0)])
def test_the_codes_of_the_source_are_those_of_the_result(sform, qform, tmp_path, head):
    header = result(write(tmp_path / "a.nii.gz", head, (AFFINE, sform), (AFFINE, qform)), tmp_path / "out").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (sform, qform)


def test_forms_that_disagree_are_told_and_the_sform_alone_is_handed_on(tmp_path, head):
    moved = AFFINE.copy()
    moved[:3, 3] += (3, 4, 0)
    path = write(tmp_path / "a.nii.gz", head, (AFFINE, 4), (moved, 1))
    assert any("sform (code 4) and qform (code 1) lie up to 5 mm apart" in line for line in doubts(path))
    made = result(path, tmp_path / "out")
    assert int(made.header["qform_code"]) == 0
    np.testing.assert_array_equal(made.affine, AFFINE)


def test_forms_that_mirror_each_other_are_refused(tmp_path, head):
    mirrored = AFFINE @ np.diag([-1.0, 1, 1, 1])
    with pytest.raises(BadInput, match="sform and qform are mirror images, so left and right are unknown"):
        read_volume(write(tmp_path / "a.nii.gz", head, (AFFINE, 1), (mirrored, 1)))


def test_a_shear_is_told_and_no_qform_claims_another_place(tmp_path, head):
    sheared = AFFINE.copy()
    sheared[:3, :3] = AFFINE[:3, :3] @ np.array([[1, 0.3, 0], [0, 1, 0.1], [0, 0, 1]])
    path = write(tmp_path / "a.nii.gz", head, (sheared, 1))
    assert any("degrees off right angles" in line for line in doubts(path))
    made = result(path, tmp_path / "out")
    assert int(made.header["qform_code"]) == 0 and int(made.header["sform_code"]) == 1
    np.testing.assert_allclose(made.affine, sheared, rtol=1e-6)  # float32


@pytest.mark.parametrize(("units", "factor", "word"), [("meter", 1000, "metres"), ("micron", 0.001, "micrometres")])
def test_other_units_become_millimetres(units, factor, word, tmp_path, head):
    own = np.diag([1 / factor] * 3 + [1]) @ AFFINE
    path = write(tmp_path / "a.nii.gz", head, (own, 1), (own, 1), units=units)
    assert doubts(path) == [f"its header is in {word}; turned into millimetres"]
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, rtol=1e-6)  # float32
    np.testing.assert_allclose(result(path, tmp_path / "out").affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize(("units", "scale"), [("meter", 1), ("mm", 0.001), ("mm", 1000), ("unknown", 1000)])
def test_a_voxel_of_no_possible_size_is_refused(units, scale, tmp_path, head):
    own = np.diag([scale] * 3 + [1]) @ AFFINE
    with pytest.raises(BadInput, match="which no scan of a head is; correct the units"):
        read_volume(write(tmp_path / "a.nii.gz", head, (own, 1), units=units))


@pytest.mark.parametrize("value", [0.0, math.nan])
@pytest.mark.parametrize("sform", [0, 1])
def test_a_voxel_without_a_size_is_refused(value, sform, tmp_path, head):
    path = write(tmp_path / "a.nii.gz", head, (AFFINE, sform), (AFFINE, 1))
    with pytest.raises(BadInput, match=r"its pixdim is 2 3 \w+, so its affine does not place the voxels in space"):
        read_volume(patch(path, 76 + 12, "<f", value))


@pytest.mark.parametrize("qfac", [0.0, 1.0])
def test_a_qfac_of_zero_is_one(qfac, tmp_path, head):
    assert doubts(patch(write(tmp_path / "a.nii.gz", head, qform=(AFFINE, 1)), 76, "<f", qfac)) == []


def test_negative_voxel_sizes_are_told(tmp_path, head):
    path = patch(write(tmp_path / "a.nii.gz", head, (AFFINE, 0), (AFFINE, 1)), 76 + 4, "<f", -2.0)
    assert doubts(path) == ["its voxel sizes -2 3 2.5 should be positive; check left and right"]
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-5)  # mm; quaternions are float32


def test_a_damaged_qform_is_told_where_the_sform_counts_and_refused_where_it_does_not(tmp_path, head):
    path = patch(write(tmp_path / "a.nii.gz", head, qform=(AFFINE, 1)), 256, "<3f", 3, 3, 3)
    assert doubts(path) == ["its qform is damaged; the sform counts"]
    with pytest.raises(BadInput, match="cannot be read as NIfTI"):
        read_volume(patch(path, 254, "<h", 0))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_in_both_byte_orders_are_examined(kind, order, tmp_path, head):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.float32)
    image = kind(head, AFFINE, header)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(BadInput, match=r"its voxels would be 0\.002x0\.003x0\.0025 mm"):
        read_volume(tmp_path / "a.nii.gz")
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz")[0], head)


def test_pixdim_that_is_not_the_size_of_the_affines_voxels_is_told(tmp_path, head):
    path = patch(write(tmp_path / "a.nii.gz", head), 76 + 4, "<f", 4.0)
    assert doubts(path) == ["its voxels are 4x3x2.5 mm by pixdim and 2x3x2.5 mm by sform; the sform counts"]


@pytest.mark.parametrize("side", [30000, 1200])
@pytest.mark.parametrize("packed", [True, False])
def test_a_size_that_the_file_cannot_hold_is_refused_before_memory_is_taken(side, packed, tmp_path, head):
    path = patch(write(tmp_path / "a.nii.gz", head), 40, "<8h", 3, side, side, side, 1, 1, 1, 1)
    if not packed:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    tracemalloc.start()
    with pytest.raises(BadInput, match=rf"its header claims ({side}x?){{3}} voxels, [0-9.]+ GB, and its [0-9.]+ kB cannot"):
        read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 1e7  # bytes; the claim is of at least 7e9
    tracemalloc.stop()


def test_a_trap_behind_the_voxels_is_not_unpacked_to_its_end(tmp_path, head, monkeypatch):
    monkeypatch.setattr("scripts.data.formats.MOST_AFTER_VOXELS", 2**21)
    path = write(tmp_path / "a.nii.gz", head)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**23)))
    with pytest.raises(BadInput, match="it goes on after its voxels"):
        read_volume(path)


@pytest.mark.parametrize("far", [-1000, -1, -32768, 4095, 65535])
def test_a_background_far_from_tissue_gives_the_volume_that_a_plain_one_gives(far, tmp_path, head):
    plain = read_volume(write(tmp_path / "a.nii.gz", head))
    marked = read_volume(write(tmp_path / "b.nii.gz", np.where(head > 0, head, far).astype(np.float32)))
    np.testing.assert_array_equal(marked, plain)
    assert json.loads(marked.meta["doubts"]) == [f"its background is {far}, far from its tissue; taken as 0"]


def test_nan_around_the_head_is_background_and_a_hole_in_it_is_not(tmp_path, head):
    hollow = np.where(head > 0, head, np.nan).astype(np.float32)
    volume = read_volume(write(tmp_path / "a.nii.gz", hollow))
    np.testing.assert_array_equal(volume[0], head)
    assert json.loads(volume.meta["doubts"]) == ["its background is NaN; taken as 0"]
    hollow[9, 10, 9] = np.nan
    with pytest.raises(BadInput, match="holds NaN or infinite voxels"):
        read_volume(write(tmp_path / "b.nii.gz", hollow))


def test_doubts_of_all_files_of_a_case_are_logged_once_and_stay_with_it(tmp_path, head, caplog):
    sound, odd = write(tmp_path / "a.nii.gz", head), write(tmp_path / "b.nii.gz", np.where(head > 0, head, -1000.0))
    data = LoadVolumesd()({"case": "x", "image": [str(sound), str(odd)], "label": str(odd)})
    line = "b.nii.gz: its background is -1000, far from its tissue; taken as 0"
    assert json.loads(data["image"].meta["doubts"]) == [line]
    assert [record.getMessage() for record in caplog.records] == [f"case x: {line}"]


def test_the_distance_of_two_affines_is_that_of_their_farthest_corner():
    turned = np.diag([1.0, 1, 1, 1])
    turned[:2, :2] = [[0, -1], [1, 0]]
    assert distance_mm(np.eye(4), turned, (4, 4, 9)) == pytest.approx(6)  # (3, 3) goes to (-3, 3)


def cube(seed):
    """Tissue of 50 to 150 in the middle of nothing."""
    volume = np.zeros((12, 12, 12), dtype=np.float32)
    volume[3:9, 3:9, 3:9] = 50 + 100 * np.random.default_rng(seed).random((6, 6, 6), dtype=np.float32)
    return volume


@pytest.mark.parametrize(("around", "scale", "shift"), [(0, 1, 0), (-300.5, 7, -300.5), (-0.6, 0.02, -0.6), (400, 1, 400)])
def test_the_darkness_around_a_head_is_near_its_tissue_on_any_scale(around, scale, shift, seed):
    volume = scale * cube(seed) + shift
    assert volume.min() == pytest.approx(around)
    assert far_background(volume) is None


@pytest.mark.parametrize("far", [-1000.0, -50000.0, 4095.0])
def test_a_value_far_from_tissue_is_told_and_what_to_take_it_for(far, seed):
    volume = cube(seed)
    assert far_background(np.where(volume > 0, volume, far)) == (far, 0)
    normalised = (volume - 100) / 30
    wanted = np.sort(normalised[volume > 0])[1]  # of 216 the two darkest are 1 %
    common, value = far_background(np.where(volume > 0, normalised, far))
    assert common == far and value == pytest.approx(float(wanted))


def test_holes_and_single_corners_are_not_what_lies_around(seed):
    around = cube(seed) == 0
    assert background_alone(around)
    around[5, 5, 5] = True
    assert not background_alone(around)
    corner = np.zeros_like(around)
    corner[0, 0, 0] = True
    assert not background_alone(corner)


def test_tissue_that_a_window_cut_off_is_no_background(rng):
    """As of an export of 8 bits, cropped to within the brain; a map of labels, too."""
    windowed = np.clip(rng.normal(220, 50, (14, 15, 9)), 0, 255).round().astype(np.float32)
    assert (windowed == 255).mean() > 0.2 and of_voxels("a", windowed)[1] == []
    labels = rng.integers(0, 4, (14, 15, 9)).astype(np.float32)
    labels[0] = 3
    assert far_background(labels) is None


def test_a_bright_background_next_to_the_range_of_the_tissue_is_one_where_it_is_alone(head):
    assert far_background(np.where(head > 0, head, 1000)) == (1000, 0)


@pytest.mark.parametrize("lesion", [1, 3])
def test_tissue_as_bright_as_the_white_around_it_stays_and_the_white_is_background(lesion, head):
    """As of an inverted image of 8 bits; a hole that a value far above everything fills is none of the head's."""
    head[8 : 8 + lesion, 9, 9] = 1000
    white = np.where(head > 0, head, 1000).astype(np.float32)
    voxels, lines = of_voxels("a", white)
    np.testing.assert_array_equal(voxels, head)
    assert lines == ["its background is 1000, far from its tissue; taken as 0"]
    marked, _ = of_voxels("a", np.where(white == 1000, 4095, white).astype(np.float32))
    np.testing.assert_array_equal(marked, np.where(white == 1000, 0, white))


def test_a_bright_value_that_is_as_much_within_as_around_is_no_background(head):
    head[(head > 0) & (np.indices(head.shape).sum(0) % 2 == 0)] = 1000
    assert far_background(np.where(head > 0, head, 1000)) is None


@pytest.mark.parametrize("around", [0.0, 0.25])
def test_what_lies_around_a_brain_normalised_alone_is_doubted_and_stays(around, tmp_path, head):
    tissue = head[head > 0]
    normalised = np.where(head > 0, (head - tissue.mean()) / tissue.std(), around).astype(np.float32)
    normalised[8:11, 9:12, 9:12] = around  # a hole in the mask
    volume = read_volume(write(tmp_path / "a.nii.gz", normalised))
    (line,) = json.loads(volume.meta["doubts"])
    assert line.startswith(f"its background is {around:g}, amid the values of its tissue, and is taken for tissue; set")
    dark = float(line.split("darkest, ")[1].split(",")[0])
    assert dark == pytest.approx(np.quantile(normalised[head > 0], 0.01), abs=0.02)
    np.testing.assert_array_equal(volume[0].numpy(), normalised)
    below = np.where(head > 0, normalised, normalised.min())
    assert of_voxels("a", below)[1] == [] and of_voxels("a", normalised, loop=True)[1] == []


def test_what_resampling_leaves_below_zero_is_no_tissue(head, rng):
    ringing = np.where(rng.random(head.shape) < 0.1, -rng.uniform(0, 20, head.shape), head).astype(np.float32)
    ringing[0], ringing[-1] = 0, 0
    assert of_voxels("a", ringing)[1] == []


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(
    ("at", "fact"),
    [(None, "are blank between others (slice 10 of 18); copy"), (8, "hold the same as the next (slice 9 of 18); copy")],
)
def test_slices_that_were_lost_or_stored_twice_are_told(axis, at, fact, tmp_path, rng):
    voxels = rng.uniform(100, 900, (18, 18, 18)).astype(np.float32)
    voxels[:2] = voxels[-2:] = voxels[:, :, :2] = voxels[:, :, -2:] = 0  # as around a head
    slices = np.moveaxis(voxels, axis, 0)
    sides = [1.0, 1.0, 1.0]
    sides[axis] = 5.0

    def told():
        nib.save(nib.Nifti1Image(voxels, np.diag([*sides, 1.0])), tmp_path / "a.nii.gz")
        return read_source(tmp_path / "a.nii.gz").doubts

    assert told() == []
    slices[9] = 0 if at is None else slices[at]
    (line,) = told()
    assert fact in line
    (tmp_path / "a.json").write_text('{"axes": ["x", "y", "t"]}')
    assert told() == []  # a film may stand still


def test_equal_and_blank_slices_of_a_label_map_are_none_that_were_lost(rng):
    labels = np.zeros((9, 9, 9), dtype=np.float32)
    labels[..., [1, 4]] = rng.integers(0, 9, (9, 9, 2))
    labels[..., 2] = labels[..., 1]
    assert of_slices(labels, 2) == []


@pytest.mark.parametrize(
    ("sides", "thickness", "between", "told"),
    [
        ((1, 1, 5), 5, 6.5, True),
        ((1, 1, 6.5), 5, 6.5, False),
        ((1, 1, 6.5), 5, 1.5, False),  # of the gap
        ((5, 1, 1), 5, 5, False),  # turned since
        ((0.5, 1.5, 1.2), 1.2, 1.2, False),
        ((1, 1, 5), 5, "none", False),
        ((1, 1, 1), 5, 6.5, True),  # resampled since
        ((0.6, 0.98, 0.98), 1.2, 0.6, False),  # a sagittal 3D scan, turned by its converter
        ((0.98, 0.7, 0.98), 1.4, 0.7, False),
    ],
)
def test_slices_that_the_json_has_elsewhere_than_the_header_are_told(sides, thickness, between, told, tmp_path, rng):
    nib.save(nib.Nifti1Image(rng.random((6, 7, 8)), np.diag([*map(float, sides), 1.0])), tmp_path / "a.nii.gz")
    (tmp_path / "a.json").write_text(json.dumps({"SliceThickness": thickness, "SpacingBetweenSlices": between}))
    lines = read_source(tmp_path / "a.nii.gz").doubts
    assert len(lines) == told and all(f"mm apart by its header and {between} mm by the JSON" in line for line in lines)


@pytest.mark.parametrize("count", [2, 5, 200])
def test_a_mask_or_map_of_labels_in_place_of_a_scan_is_told(count, tmp_path, rng):
    labels = np.pad(rng.integers(0, count, (10, 10, 10)), 2).astype(np.float32)
    lines = read_source(write(tmp_path / "a.nii.gz", labels)).doubts
    kinds = "masks, label maps and pictures of few grey levels"
    told = [f"holds {count} values alone, as {kinds} do; give the scan that it was made of"]
    assert lines == (told if count < 200 else [])
    assert read_source(tmp_path / "a.nii.gz", constant=True).doubts == []
