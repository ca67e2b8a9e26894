# SPDX-License-Identifier: Apache-2.0
"""Video as cine: what PyAV and Pillow read of results; streams that are broken, cut, still, empty or too large."""

import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import pytest
from cine_files import beating, finer
from PIL import Image

from scripts.data.cine import read_cine, write_cine
from scripts.data.cine.video import encode
from scripts.errors import BadInput

SUFFIXES = (".mp4", ".mov", ".avi", ".gif")
each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)
# Of 255: H.264 in 8 bits of limited range loses little, FFV1 and GIF nothing of greys. RMS, largest.
LOSS = {".mp4": (1.2, 8), ".mov": (1.2, 8), ".avi": (0, 0), ".gif": (0, 0)}


@pytest.fixture
def frames(rng):
    """(frames, rows, columns) of uint8."""
    return (beating((32, 24, 1, 9), rng)[:, :, 0].transpose(2, 1, 0) // 4).astype(np.uint8)


def in_colour(frames):
    return np.stack([frames, frames // 2 + 30, 255 - frames], axis=-1)


def save(path, pictures, step=0.04):
    with path.open("wb") as file:
        encode(pictures, step, file, suffix=path.suffix)
    return path


def by_pillow_or_av(path):
    """(frames, rows, columns, 3), by a reader that is not ours."""
    if path.suffix == ".gif":
        return imageio.imread(path, index=None, mode="RGB")
    with av.open(str(path)) as opened:
        return np.stack([of_frame(frame) for frame in opened.decode(video=0)])


def of_frame(frame):
    """Of grey H.264 by its definition (ITU-R 601): luminances are 16 to 235, colours 128."""
    planes = frame.to_ndarray() if frame.format.name == "yuv420p" else None
    if planes is None or (planes[frame.height :] != 128).any():
        return frame.to_ndarray(format="rgb24")
    return np.repeat(((planes[: frame.height] - 16.0) * 255 / 219)[..., None], 3, axis=-1)


@each_suffix
def test_frames_and_times_come_back(suffix, frames, tmp_path):
    cine = read_cine(save(tmp_path / f"a{suffix}", frames))
    assert cine.voxels.shape == (32, 24, 1, 9) and not cine.gated and cine.doubts == ()
    np.testing.assert_allclose(cine.frame_times, 0.04 * np.arange(9), atol=1e-3)
    error = cine.voxels[:, :, 0].transpose(2, 1, 0) - frames
    rms, most = LOSS[suffix]
    assert np.sqrt((error**2).mean()) <= rms and np.abs(error).max() <= most


@each_suffix
def test_grey_stays_grey_in_a_finer_result(suffix, frames, tmp_path):
    cine = read_cine(save(tmp_path / f"a{suffix}", frames))
    result = finer(cine, space=2, time=2)
    write_cine(result, cine, tmp_path / f"b{suffix}")
    seen = by_pillow_or_av(tmp_path / f"b{suffix}")
    assert seen.shape == (18, 48, 64, 3) and (seen == seen[..., :1]).all()
    rms, most = LOSS[suffix]
    error = seen[..., 0].astype(float) - result.voxels[:, :, 0].transpose(2, 1, 0)
    assert np.sqrt((error**2).mean()) <= rms and np.abs(error).max() <= most
    times = read_cine(tmp_path / f"b{suffix}").frame_times
    np.testing.assert_allclose(times, 0.02 * np.arange(18), atol=2e-3)


def test_the_times_of_a_gif_are_those_of_pillow(frames, tmp_path):
    path = save(tmp_path / "a.gif", frames, step=1 / 30)
    with Image.open(path) as image:
        durations = [image.seek(k) or image.info["duration"] for k in range(image.n_frames)]
    np.testing.assert_allclose(1000 * np.diff(read_cine(path).frame_times), durations[:-1])
    assert set(durations) == {30, 40}  # hundredths of a second, of which 30 frames last one


@pytest.mark.parametrize("suffix", [".avi", ".gif"])
def test_colours_of_an_unchanged_result_are_those_of_the_film(suffix, frames, tmp_path):
    path = save(tmp_path / f"a{suffix}", in_colour(frames))
    cine = read_cine(path)
    write_cine(cine, cine, tmp_path / f"b{suffix}")
    error = by_pillow_or_av(path).astype(float) - by_pillow_or_av(tmp_path / f"b{suffix}")
    assert np.abs(error).max() == 0


def test_colours_of_an_mp4_lie_where_they_were(tmp_path, rng):
    red_and_blue = np.zeros((8, 32, 32, 3), dtype=np.uint8)
    red_and_blue[:, :, :16, 0], red_and_blue[:, :, 16:, 2] = 200, 250
    red_and_blue[..., 1] = rng.integers(20, 40, (8, 1, 1))
    cine = read_cine(save(tmp_path / "a.mp4", red_and_blue))
    write_cine(finer(cine, space=4), cine, tmp_path / "b.mp4")
    seen = by_pillow_or_av(tmp_path / "b.mp4").astype(float)
    assert seen.shape == (8, 128, 128, 3)
    assert (
        np.abs(seen[:, :, :48] - red_and_blue[:, :1, :1]).max() < 8
        and np.abs(seen[:, :, 80:] - red_and_blue[:, :1, -1:]).max() < 8
    )


def test_a_film_may_be_answered_in_another_container(frames, tmp_path):
    cine = read_cine(save(tmp_path / "a.avi", frames))
    write_cine(cine, cine, tmp_path / "b.gif")
    np.testing.assert_array_equal(read_cine(tmp_path / "b.gif").voxels, cine.voxels)


def test_odd_sides_are_kept(frames, tmp_path):
    for suffix in SUFFIXES:
        assert read_cine(save(tmp_path / f"a{suffix}", frames[:, :23, :31])).voxels.shape == (31, 23, 1, 9)


# Refused


def refused(path, fact):
    with pytest.raises(BadInput, match=fact) as caught:
        read_cine(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


@each_suffix
def test_a_single_frame_is_refused_in_colour_too(suffix, frames, tmp_path):
    refused(save(tmp_path / f"a{suffix}", in_colour(frames[:1])), "is a single frame; a cine needs several")


@each_suffix
def test_a_stream_that_is_cut_short_is_refused(suffix, frames, tmp_path):
    path = save(tmp_path / f"a{suffix}", frames)
    content = path.read_bytes()
    for share in (0.95, 0.6, 0.1):
        path.write_bytes(content[: int(share * len(content))])
        refused(path, "copy it again|export it again")


@each_suffix
def test_what_is_no_video_is_refused(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    for content in (b"", b"text " * 100, b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"ffconcat version 1.0\nfile b.mp4\n"):
        path.write_bytes(content)
        refused(path, "is no video that can be used|holds no picture")


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_film_that_its_header_trims_is_read_as_it_is_shown(end, frames, tmp_path):
    """As telephones trim: a list of edits (elst) shows a part, and the stream stays whole."""
    path = save(tmp_path / "a.mp4", frames)
    whole, content = read_cine(path).voxels, bytearray(path.read_bytes())
    place = content.find(b"elst") + 12  # of its only edit: length by the film's clock, start by the stream's
    length, start = struct.unpack(">Ii", content[place : place + 8])
    stream = content.find(b"mdhd") + 16
    frame = struct.unpack(">I", content[stream : stream + 4])[0] * 4 // 100  # 40 ms
    edit = (length, start + 3 * frame) if end == "first" else (length * 6 // 9, start)
    content[place : place + 8] = struct.pack(">Ii", *edit)
    path.write_bytes(content)
    cine = read_cine(path)
    np.testing.assert_array_equal(cine.voxels, whole[..., 3:] if end == "first" else whole[..., :6])
    assert cine.doubts == ("is trimmed by its header: the 6 of its 9 frames that players show are read",)
    write_cine(cine, cine, tmp_path / "b.mp4")
    assert read_cine(tmp_path / "b.mp4").voxels.shape == cine.voxels.shape
    for share in (0.95, 0.6):  # a film that is cut short is not trimmed
        path.write_bytes(content[: int(share * len(content))])
        refused(path, "copy it again|export it again")


def test_a_playlist_opens_no_other_file(frames, tmp_path):
    save(tmp_path / "b.mp4", frames)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile b.mp4\n")
    refused(tmp_path / "a.mp4", "is no video that can be used")


def test_sound_alone_is_refused_and_beside_a_film_it_is_told(frames, tmp_path):
    def with_sound(path, pictures):
        with av.open(str(path), "w") as output:
            sound = output.add_stream("aac", rate=48000, layout="mono")
            film = output.add_stream("libx264", rate=25) if len(pictures) else None
            if film:
                film.height, film.width = pictures[0].shape
            for picture in pictures:
                output.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            for stream, frame in ((sound, silence), (sound, None), *([(film, None)] if film else [])):
                output.mux(stream.encode(frame))
        return path

    refused(with_sound(tmp_path / "a.mp4", []), "holds no pictures; give a video")
    assert read_cine(with_sound(tmp_path / "b.mp4", frames)).doubts == ("has sound, which a result is without",)


def test_frames_of_uneven_times_are_refused(frames, tmp_path):
    few = [Image.fromarray(frame) for frame in frames]
    durations = [40, 40, 40, 70, 40, 40, 60, 40, 40]
    few[0].save(tmp_path / "a.gif", save_all=True, append_images=few[1:], duration=durations)
    refused(tmp_path / "a.gif", "its frame times vary by more than 10%|lacks 1 frame")


def test_a_film_that_its_header_turns_is_refused(frames, tmp_path):
    path = save(tmp_path / "a.mp4", frames)
    content = bytearray(path.read_bytes())
    place = content.find(b"tkhd") + 44  # its matrix, of 16.16 numbers and, last in each row, 2.30
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    content[place : place + 36] = np.array(turned, dtype=">i4").tobytes()
    path.write_bytes(content)
    refused(path, "is turned by (90|270) degrees by its header alone; save it turned")


def test_pixels_that_are_not_square_are_told(frames, tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        film = output.add_stream("libx264", rate=25)
        film.height, film.width = frames[0].shape
        film.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for picture in [*frames, None]:
            frame = None if picture is None else av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            output.mux(film.encode(frame))
    assert "has pixels that are 1.33 times as wide as high" in read_cine(tmp_path / "a.mp4").doubts[0]


def test_a_black_film_and_one_frame_for_ever_are_told(frames, tmp_path):
    refused(save(tmp_path / "a.avi", np.zeros_like(frames)), "every voxel of every frame is 0")
    cine = read_cine(save(tmp_path / "b.avi", frames[:1].repeat(9, axis=0)))
    assert cine.doubts == ("all of its frames are the same: nothing moves",)


def test_frames_that_claim_to_be_huge_are_refused_before_they_are_decoded(frames, tmp_path):
    path = save(tmp_path / "a.avi", frames)
    content = bytearray(path.read_bytes())
    place = content.find(b"strf") + 8  # BITMAPINFOHEADER: its size, width, height
    content[place + 4 : place + 12] = (30000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    refused(path, "claims frames of (30000x30000|0x0) pixels")


def test_a_result_that_cannot_be_written_leaves_nothing(frames, tmp_path):
    cine = read_cine(save(tmp_path / "a.mp4", in_colour(frames)))
    (tmp_path / "a.mp4").write_bytes(b"gone")
    with pytest.raises(BadInput, match=r"a\.mp4: is no video that can be used"):
        write_cine(replace(cine), cine, tmp_path / "b.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_without_pyav_a_line_says_what_to_install(frames, tmp_path):
    path = save(tmp_path / "a.gif", frames)
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'av' else find(name, *rest)\n"
        f"from scripts.data.cine import read_cine\nread_cine({str(path)!r})"
    )
    root = Path(__file__).resolve().parents[3]
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert 'videos need PyAV, which is not installed; pip install "score-fusion[video]"' in said.stderr
