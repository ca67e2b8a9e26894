# SPDX-License-Identifier: Apache-2.0
"""Which slices are a volume and whether any are missing, told from headers alone."""

import numpy as np
import pydicom
import pytest
from dicom_series import random_affine, random_voxels, write_enhanced, write_series
from pydicom.uid import generate_uid

from scripts.data.dicom.find import find_series
from scripts.data.dicom.series import affine_of

COUNT, SPACING = 20, 5.0


@pytest.fixture
def write(tmp_path, rng):
    """Writes axial slices 5 mm apart at the places (mm) that are given, with the tags of a scanner; returns their paths."""

    def write(places=tuple(SPACING * k for k in range(COUNT)), *, skip=(), folder="series", **tags):
        voxels = random_voxels(rng, (12, 10, len(places)))
        given = {
            "ImagePositionPatient": lambda k: [-20, -30, places[k]],
            "InstanceNumber": lambda k: k + 1,
            "SliceThickness": "4",
        }
        return write_series(tmp_path / folder, voxels, np.diag([-1.0, -1, SPACING, 1]), skip=skip, **{**given, **tags})

    return write


def found(folder):
    return find_series(folder).series


def uids():
    return {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}


# One echo, one component, one inversion


@pytest.mark.parametrize(
    ("keyword", "values", "parts"),
    [
        ("EchoTime", ("4.92", "7.38"), ["echo 4.92", "echo 7.38"]),
        ("InversionTime", ("700", "2500"), ["inversion 700", "inversion 2500"]),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "M", "ND"], ["ORIGINAL", "PRIMARY", "P", "ND"]),
            ["component magnitude", "component phase"],
        ),
        ("ComplexImageComponent", ("REAL", "IMAGINARY"), ["component imaginary", "component real"]),
    ],
)
@pytest.mark.parametrize("mixture", ["halves", "every other"])
def test_two_halves_of_different_kinds_never_make_a_volume(tmp_path, write, keyword, values, parts, mixture):
    which = (lambda k: k // (COUNT // 2)) if mixture == "halves" else (lambda k: k % 2)
    write(**{keyword: lambda k: values[which(k)]})
    series = found(tmp_path)
    assert sorted(one.part for one in series) == sorted(parts)
    assert all(one.shape[2] == COUNT // 2 and f"lacks {COUNT // 2} slices that" in one.problem for one in series)


def test_both_echoes_of_a_whole_field_map_are_volumes(tmp_path, write):
    ids = uids()
    for echo in ("4.92", "7.38"):
        write(folder=echo, EchoTime=echo, **ids)
    assert [(one.part, one.shape[2], one.problem) for one in found(tmp_path)] == [
        ("echo 4.92", COUNT, ""),
        ("echo 7.38", COUNT, ""),
    ]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AcquisitionNumber", lambda k: k // 4 + 1),
        ("EchoTime", lambda k: f"{10 + 1e-4 * k:.5f}"),  # the last digits of one echo
        ("RescaleSlope", lambda k: f"{1 + 0.01 * k:.2f}"),
        ("TriggerTime", lambda k: str(30 * k)),
    ],
)
def test_what_may_change_within_a_volume_does_not_split_it(tmp_path, write, keyword, value):
    write(**{keyword: value})
    (series,) = found(tmp_path)
    assert series.shape[2] == COUNT and not series.problem and not series.doubts


def test_the_phase_frames_of_an_enhanced_file_are_excluded_and_its_magnitude_is_not(tmp_path, rng):
    path = write_enhanced(tmp_path / "one.dcm", random_voxels(rng), random_affine(rng), echoes=(10.0, 10.0))
    dataset = pydicom.dcmread(path)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = pydicom.Dataset()
        item.ComplexImageComponent = ("MAGNITUDE", "PHASE")[number % 2]
        frame.MRImageFrameTypeSequence = [item]
    dataset.save_as(path)
    assert [(one.part, bool(one.exclusion)) for one in found(tmp_path)] == [
        ("component magnitude", False),
        ("component phase", True),
    ]


def test_slices_in_different_units_are_told(tmp_path, write):
    write(RescaleType=lambda k: "US" if k < 3 else "normalized")
    (series,) = found(tmp_path)
    assert not series.problem and "different units or scales (US, normalized)" in series.doubts[0]


def test_slices_of_different_real_world_values_are_told(tmp_path, write):
    def mapping(k):
        item = pydicom.Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = 1.0 + (k % 2), 0.0
        return [item]

    write(RealWorldValueMappingSequence=mapping)
    assert "different units or scales (1, 2)" in found(tmp_path)[0].doubts[0]


def test_scale_slopes_of_philips_are_told_in_numbers(tmp_path, write):
    for k, path in enumerate(write()):
        dataset = pydicom.dcmread(path)
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", (0.004521, 0.0123456)[k % 2])
        dataset.save_as(path)
    assert "different units or scales (0.004521, 0.01235)" in found(tmp_path)[0].doubts[0]


@pytest.mark.parametrize("text", ["19700101", "Doe", "0.19700101"])
def test_of_units_what_may_be_a_name_or_a_date_is_not_told(tmp_path, write, text):
    write(RescaleType=lambda k: "US" if k < 3 else text)
    (doubt,) = found(tmp_path)[0].doubts
    assert "US" in doubt and "another" in doubt and text not in doubt


# Nothing is missing


@pytest.mark.parametrize("evidence", [{"SpacingBetweenSlices": "5"}, {}])
def test_a_scan_of_every_other_slice_is_refused(tmp_path, write, evidence):
    write(skip=range(1, COUNT, 2), **evidence)
    (series,) = found(tmp_path)
    assert series.shape[2] == COUNT // 2
    assert (
        series.problem.startswith("lacks slices: its slices are 10 mm apart, but")
        and "no image has number 2, 4, 6" in series.problem
    )


def test_of_every_other_slice_that_was_numbered_anew_the_spacing_tells(tmp_path, write):
    write([2 * SPACING * k for k in range(COUNT)], SpacingBetweenSlices="5")
    (series,) = found(tmp_path)
    assert not series.problem and "10 mm apart, but 5 mm by SpacingBetweenSlices" in series.doubts[0]


@pytest.mark.parametrize(
    ("skip", "tags", "doubt"),
    [
        ([0], {}, "no image has number 1 of 20"),
        ([19, 18, 17], {"ImagesInAcquisition": 20}, "it has 17 images, but 20 by ImagesInAcquisition"),
        ([0, 1], {"SpacingBetweenSlices": "5"}, "no image has number 1, 2 of 20"),
    ],
)
def test_slices_missing_at_an_end_are_a_doubt(tmp_path, write, skip, tags, doubt):
    write(skip=skip, **tags)
    (series,) = found(tmp_path)
    assert not series.problem and series.doubts == (f"series 1 t1 may lack slices: {doubt}",)


@pytest.mark.parametrize(
    "tags",
    [
        {"SpacingBetweenSlices": "5"},
        {"SpacingBetweenSlices": "1"},  # some write the gap between slices
        {"InstanceNumber": lambda k: 2 * k + 1, "SpacingBetweenSlices": "5"},  # the other half is a series of its own
        {"InstanceNumber": lambda k: k + 301, "ImagesInAcquisition": 20},
        {"InstanceNumber": 1},
        {"InstanceNumber": None, "SliceThickness": None},
        {"InstanceNumber": lambda k: COUNT - k},
        {"InstanceNumber": lambda k: k + 1 if k else 2**31 - 1},  # numbers that count nothing, and would fill any memory
    ],
)
def test_a_whole_scan_raises_no_doubt_however_it_is_counted(tmp_path, write, tags):
    write(**tags)
    assert [(one.problem, one.doubts) for one in found(tmp_path)] == [("", ())]


# An even, straight grid


@pytest.mark.parametrize("decimals", [1, 2, 4])
@pytest.mark.parametrize("spacing", [0.93, 1.5, 3.33, 6.5])
def test_rounded_positions_are_an_even_grid_of_the_right_spacing(tmp_path, write, spacing, decimals):
    write([round(0.37 + spacing * k, decimals) for k in range(COUNT)])
    (series,) = found(tmp_path)
    assert not series.problem
    assert series.spacing[2] == pytest.approx(spacing, abs=0.05 * 10 ** (1 - decimals) / 10)  # far below one rounding


@pytest.mark.parametrize("lost", [1, 7, 18])
def test_a_missing_slice_is_found_among_rounded_positions(tmp_path, write, rng, lost):
    write([round(1.1 * k + rng.uniform(-0.05, 0.05), 3) for k in range(COUNT)], skip=[lost])
    assert found(tmp_path)[0].problem.startswith("lacks 1 slice: ")


def test_cosines_of_two_decimals_do_not_tilt_a_scan(tmp_path, write):
    turned = np.radians(7)
    normal = np.array([0, -np.sin(turned), np.cos(turned)])
    write(
        ImageOrientationPatient=[1, 0, 0, 0, round(np.cos(turned), 2), round(np.sin(turned), 2)],
        ImagePositionPatient=lambda k: [round(x, 4) for x in SPACING * k * normal],
    )
    (series,) = found(tmp_path)
    assert not series.problem
    last = affine_of(series) @ [0, 0, COUNT - 1, 1]
    np.testing.assert_allclose(last[:3], np.array([-1, -1, 1]) * SPACING * (COUNT - 1) * normal, atol=1e-3)  # mm


def test_one_slice_with_another_rounding_of_its_pixels_stays_in_the_volume(tmp_path, write):
    write(PixelSpacing=lambda k: ["1.00001", "1.00001"] if k == 3 else ["1", "1"])
    (series,) = found(tmp_path)
    assert series.shape[2] == COUNT and not series.problem


def test_images_of_one_place_are_called_a_film(tmp_path, write):
    write([0.0] * COUNT)
    (one,) = found(tmp_path)
    assert one.problem == "has all 20 images at the same place, as a film does; for one --task cine_super_resolution"


def test_rows_and_columns_that_are_not_at_right_angles_are_refused(tmp_path, write):
    write(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0])
    assert "not at right angles" in found(tmp_path)[0].problem
