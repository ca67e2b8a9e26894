# SPDX-License-Identifier: Apache-2.0
"""Previews: what stands where in every frame, how long it lasts, and that files stay small."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from scripts.data.cine import Cine
from scripts.data.cine.preview import GAP, HEIGHTS, MOST_BYTES, STRIP, write_preview
from scripts.errors import BadInput

SHAPE = (48, 40, 2, 8)


@pytest.fixture
def cine(rng):
    """Noise in 5 mm pixels, x to the left, y to the back."""
    return Cine(rng.random(SHAPE, dtype=np.float32), np.diag([-5.0, -5, 8, 1]), 0.04 * np.arange(8), True, Path("a"))


def panels_of(path, count):
    """(frames, rows, columns) of each panel, and how long frames last, ms."""
    if path.suffix == ".gif":
        with Image.open(path) as film:
            frames, times = zip(
                *[(film.seek(k) or np.asarray(film.convert("L")), film.info["duration"]) for k in range(film.n_frames)],
                strict=True,
            )
    else:
        with av.open(str(path)) as film:
            frames, times = zip(
                *[(frame.to_ndarray(format="gray"), 1000 * frame.time) for frame in film.decode(video=0)], strict=True
            )
            times = np.diff(times)
    pictures = np.stack(frames)[:, STRIP:-STRIP]
    width = (pictures.shape[2] - GAP * (count - 1)) / count
    return [pictures[:, :, round(k * (width + GAP)) :][:, :, : int(width)] for k in range(count)], times


def shown(cine, index, height):
    """What a panel of greys shows, by Pillow's own resizing."""
    low, high = np.quantile(cine.voxels[:, :, index], [0.005, 0.995])
    greys = ((cine.voxels[:, :, index] - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    size = round(height * SHAPE[0] / SHAPE[1]), height
    return np.stack([Image.fromarray(greys[..., k].T).resize(size, Image.Resampling.NEAREST) for k in range(greys.shape[2])])


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_every_frame_shows_its_slice_in_the_panel_of_its_label(suffix, cine, tmp_path):
    other = replace(cine, voxels=cine.voxels[..., ::-1])
    write_preview({"input": other, "truth": cine}, path := tmp_path / f"a{suffix}", index=1)
    (left, right), times = panels_of(path, 2)
    expected = shown(cine, 1, left.shape[1])
    assert len(right) == 8 and np.allclose(times, 40, atol=0.5)
    for k in range(8):  # greys are 64 in a GIF, H.264 is lossy
        assert np.abs(right[k].astype(float) - expected[k][:, : right.shape[2]]).mean() < 8
        assert np.abs(left[k].astype(float) - expected[7 - k][:, : left.shape[2]]).mean() < 8


def test_a_coarse_frame_lasts_as_long_as_the_fine_ones_in_it(cine, tmp_path):
    coarse = replace(
        cine,
        voxels=cine.voxels[::2, ::2, :, ::2],
        affine=cine.affine @ np.diag([2, 2, 1, 1]),
        frame_times=cine.frame_times[::2],
    )
    write_preview({"input": coarse, "truth": cine}, tmp_path / "a.gif")
    (left, _), _ = panels_of(tmp_path / "a.gif", 2)
    same = [(before == after).all() for before, after in pairwise(left)]
    assert same == [True, False] * 3 + [True]


def test_panels_shrink_until_a_preview_is_small(rng, tmp_path):
    noise = Cine(
        rng.random((256, 256, 1, 24), dtype=np.float32), np.diag([-1.0, -1, 8, 1]), 0.03 * np.arange(24), True, Path("a")
    )
    write_preview({"input": noise, "result": noise, "truth": noise}, path := tmp_path / "a.gif")
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as film:
        assert film.n_frames == 24 and film.height - 2 * STRIP in HEIGHTS[1:]
    long = replace(noise, voxels=np.tile(noise.voxels, (1, 1, 1, 10)), frame_times=0.03 * np.arange(240))
    with pytest.raises(BadInput, match="240 frames do not fit in 1 MB"):
        write_preview({"a": long, "b": long, "c": long}, tmp_path / "b.gif")
    with pytest.raises(BadInput, match=r"b\.png: a film is a \.gif or an \.mp4"):
        write_preview({"a": noise}, tmp_path / "b.png")
    assert [one.name for one in tmp_path.iterdir()] == ["a.gif"]


def test_a_scan_is_turned_upright_and_a_video_is_left_as_it_is(cine, tmp_path):
    turned = replace(cine, voxels=cine.voxels[::-1, ::-1], affine=np.diag([5.0, 5, 8, 1]))  # to the right, to the front
    for name, one in {"a": cine, "b": turned}.items():
        write_preview({"x": one}, tmp_path / f"{name}.gif")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    video = replace(cine, affine=np.eye(4))
    write_preview({"x": video}, tmp_path / "c.gif")
    (panel,), _ = panels_of(tmp_path / "c.gif", 1)
    finer = replace(video, affine=np.diag([0.5, 0.5, 1, 1]), voxels=video.voxels.repeat(2, 0).repeat(2, 1))
    write_preview({"x": video, "y": finer}, tmp_path / "d.gif")
    (left, right), _ = panels_of(tmp_path / "d.gif", 2)
    assert np.abs(left[0][:, :300].astype(float) - right[0][:, :300]).mean() < 8
    assert (
        np.abs(panel[0][:, : round(256 * 1.2)].astype(float) - shown(video, 0, panel.shape[1])[0][:, : panel.shape[2]]).mean()
        < 8
    )
