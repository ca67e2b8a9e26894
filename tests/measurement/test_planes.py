# SPDX-License-Identifier: Apache-2.0
import pytest

from scripts.errors import BadInput
from scripts.measurement.planes import PAIRS, PLANES, axis_of


@pytest.mark.parametrize(("plane", "pair"), [("sagittal", "y-z"), ("coronal", "x-z"), ("axial", "x-y")])
def test_a_plane_of_the_body_is_that_of_its_two_axes(plane, pair):
    assert axis_of(plane) == axis_of(pair)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_plane_is_cut_along_the_axis_that_it_does_not_name(pair):
    names = ("x", "y", "t") if "t" in pair else ("x", "y", "z")
    assert names[axis_of(pair)] not in pair.split("-")
    assert set(pair.split("-")) | {names[axis_of(pair)]} == set(names)


def test_another_name_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match=f"no plane 'z-t'; choose one of {', '.join(PLANES | PAIRS)}"):
        axis_of("z-t")
