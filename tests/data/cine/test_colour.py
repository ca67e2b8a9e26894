# SPDX-License-Identifier: Apache-2.0
"""Colour by luminance: Pillow's greys, colours that stay while the brightness changes, in place and in time."""

import numpy as np
from PIL import Image

from scripts.data.cine.colour import is_grey, luminance, recolour, to_bytes


def draw(rng, shape=(12, 16)):
    return rng.integers(0, 256, (*shape, 3)).astype(np.uint8)


def test_luminance_is_that_of_pillow(rng):
    picture = draw(rng)
    by_pillow = np.asarray(Image.fromarray(picture).convert("L"), dtype=float)  # ITU-R 601, rounded
    np.testing.assert_allclose(luminance(picture), by_pillow, atol=0.51 + 1 / 128)
    grey = np.repeat(picture[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(luminance(grey), picture[..., 0])
    assert is_grey(grey) and is_grey(picture[..., 0]) and not is_grey(picture)


def test_the_same_luminance_gives_the_same_film(rng):
    film = [draw(rng) for _ in range(4)]
    for before, after in zip(film, recolour(map(luminance, film), film, range(4)), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_is_brighter_keeps_its_colours(rng):
    film = [draw(rng) // 2 + 40]
    (brighter,) = recolour([luminance(film[0]) + 20], film, [0])
    np.testing.assert_array_equal(brighter, film[0] + 20)


def test_colours_lie_where_they_were_on_a_finer_grid():
    halves = np.zeros((8, 8, 3), dtype=np.uint8)
    halves[:, :4, 0], halves[:, 4:, 2] = 200, 200
    light = np.repeat(np.repeat(luminance(halves), 4, 0), 4, 1)
    (finer,) = recolour([light], [halves], [0])
    assert (finer[:, :12] == halves[0, 0]).all() and (finer[:, 20:] == halves[0, -1]).all()


def test_colours_between_two_frames_are_in_proportion_and_stay_after_the_last():
    red, blue = (np.full((6, 6, 3), colour, dtype=np.uint8) for colour in ((120, 80, 80), (80, 80, 120)))
    grey = np.full((6, 6), 100, dtype=np.float32)
    film = list(recolour([grey] * 5, [red, blue], [0, 0.25, 0.5, 1, 1]))
    red_less_blue = [int(frame[0, 0, 0]) - int(frame[0, 0, 2]) for frame in film]
    assert red_less_blue == [40, 20, 0, -40, -40]


def test_bytes_are_rounded_and_cut():
    np.testing.assert_array_equal(to_bytes(np.array([-3, 0.4, 0.6, 254.6, 300])), [0, 0, 1, 255, 255])
