# SPDX-License-Identifier: Apache-2.0
"""Cine as MP4, AVI and GIF through PyAV, from a stream and as the format of its name: no playlist, no other file is opened."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from ...errors import BadInput
from ...files import whole
from .cine import MOST_VOXELS, Cine, check_shape, check_times, check_voxels
from .colour import Picture, is_grey, luminance, recolour, to_bytes
from .kinds import Kind

if TYPE_CHECKING:
    from ..provenance import Provenance


class Container(NamedTuple):
    """format: FFmpeg's name. codec, options: of what is written; grey, colours: pixel formats. clock: s, to which times are
    rounded.
    """

    format: str
    codec: str
    grey: str
    colours: str
    options: dict[str, str] = {}
    clock: float = 1e-3


# H.264 as browsers play it, with little loss; FFV1 without loss; GIF without loss of greys, and 256 colours a frame.
MP4 = Container("mp4", "libx264", "yuv420p", "yuv420p", {"crf": "1", "preset": "medium"})
CONTAINERS = {
    ".mp4": MP4, ".m4v": MP4, ".mov": MP4._replace(format="mov"),
    ".avi": Container("avi", "ffv1", "gray", "bgr0"),
    ".gif": Container("gif", "gif", "gray", "pal8", clock=1e-2),
}  # fmt: skip
LARGEST_FRAME = 1 << 24  # pixels
MOST_SHOWN = 256  # colours of a GIF's frame
GIF_END = b";"


def read_video(path: Path) -> Cine:
    """(width, height, 1, frames) of luminances of 0 to 255. Raises BadInput for a stream that is broken, or no film."""
    times, lights, doubts = [], [], list[str]()
    for time, picture in frames_of(path, doubts):
        times.append(time)
        lights.append(luminance(picture).T)
    if not lights:
        raise BadInput(f"{path}: holds no picture that can be decoded; export it again")
    check_shape(str(path), (*lights[0].shape, 1, len(lights)))
    since = np.asarray(times) - times[0]
    check_times(str(path), since, clock=_container(path).clock)
    voxels = np.stack(lights, axis=-1)[:, :, None]
    return Cine(voxels, np.eye(4), since, False, path, (*doubts, *check_voxels(str(path), voxels)))


def write_video(cine: Cine, like: Cine, path: Path, provenance: "Provenance | None" = None) -> None:
    """The luminance as in `cine`, the colours of `like`; one that is grey stays grey."""
    lights = (cine.voxels[:, :, 0, k].T for k in range(cine.voxels.shape[3]))
    pictures: Iterable[Picture] = map(to_bytes, lights)
    if not all(is_grey(picture) for _, picture in frames_of(like.source)):
        positions = np.interp(cine.frame_times, like.frame_times, np.arange(len(like.frame_times)))
        pictures = recolour(lights, (picture for _, picture in frames_of(like.source)), [float(one) for one in positions])
    step = float(cine.frame_times[-1] - cine.frame_times[0]) / (len(cine.frame_times) - 1)
    with whole(path) as part, part.open("wb") as file:
        encode(pictures, step, file, suffix=path.suffix)


def encode(pictures: Iterable[Picture], step: float, file: BinaryIO, *, suffix: str, crf: int | None = None) -> None:
    """Pictures (H, W) or (H, W, 3) as a video of one picture in `step` s; suffix: as of `CONTAINERS`; crf: of H.264, for files
    smaller than results are.
    """
    container = CONTAINERS[suffix.lower()]
    options = container.options | ({"crf": str(crf)} if crf is not None and container.options else {})
    rate = Fraction(1 / step).limit_denominator(1001)
    with _av().open(file, "w", format=container.format) as output:
        stream: Any = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream(container.codec, rate=rate, options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = _pixel_format(container, picture)
            frame = _frame(picture, stream.pix_fmt)
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode(None))


def frames_of(path: Path, doubts: list[str] | None = None) -> Iterator[tuple[float, Picture]]:
    """Time in s and picture (H, W, 3), frame by frame; lines about the stream are added to `doubts`.

    Raises BadInput, perhaps after some frames, when the stream is damaged, cut short, or too large.
    """
    av = _av()
    with path.open("rb") as file, _usable(path), av.open(file, format=_container(path).format) as opened:
        doubts = [] if doubts is None else doubts
        stream = _stream(path, opened, doubts)
        size, count = (stream.height, stream.width), 0
        for frame in opened.decode(stream):
            if (frame.height, frame.width) != size:
                raise BadInput(f"{path}: changes the size of its frames from {size[1]}x{size[0]}; export it again")
            if frame.rotation:
                raise BadInput(f"{path}: is turned by {frame.rotation % 360} degrees by its header alone; save it turned")
            if frame.is_corrupt or frame.time is None:
                fact = "is damaged" if frame.is_corrupt else "does not say when it is shown"
                raise BadInput(f"{path}: frame {count + 1} {fact}; copy or export it again")
            if (count := count + 1) * frame.height * frame.width > MOST_VOXELS:
                raise BadInput(f"{path}: holds more than the {MOST_VOXELS:.2g} pixels that are worked on; cut it")
            yield float(frame.time), _converted(frame, "rgb24").to_ndarray()
        if stream.frames and count != stream.frames:
            if count != _packets(path, edited=True) or stream.frames != _packets(path, edited=False):
                raise BadInput(f"{path}: ends after {count} of {stream.frames} frames; copy it again")
            doubts.append(f"is trimmed by its header: the {count} of its {stream.frames} frames that players show are read")
    if path.suffix.lower() == ".gif" and not _ends_well(path):
        raise BadInput(f"{path}: is cut short, it ends without a GIF's end; copy it again")


def _packets(path: Path, *, edited: bool) -> int:
    """Of the film in a file: those that are shown, or with what its list of edits cuts off without taking it out."""
    options = {} if edited else {"ignore_editlist": "1"}
    with path.open("rb") as file, _av().open(file, format=_container(path).format, options=options) as opened:
        return sum(packet.size > 0 and not packet.is_discard for packet in opened.demux(opened.streams.video[0]))


def _stream(path: Path, opened: Any, doubts: list[str]) -> Any:
    """The film among the streams of a file, set to stop at faults."""
    if not opened.streams.video:
        raise BadInput(f"{path}: holds no pictures; give a video")
    stream = opened.streams.video[0]
    if not 0 < stream.width * stream.height <= LARGEST_FRAME:
        raise BadInput(f"{path}: claims frames of {stream.width}x{stream.height} pixels; resize it, or ask its sender")
    if len(opened.streams.video) > 1:
        doubts.append(f"holds {len(opened.streams.video)} films; the first is read")
    if opened.streams.audio:
        doubts.append("has sound, which a result is without")
    if (aspect := float(stream.sample_aspect_ratio or 1)) != 1:
        doubts.append(f"has pixels that are {aspect:.3g} times as wide as high; those of a result say that they are square")
    if (bits := max(one.bits for one in stream.format.components)) > 8:
        doubts.append(f"has {bits} bits a colour, of which 8 are read")
    stream.codec_context.options = {"err_detect": "explode"}
    stream.thread_count = 1  # memory is a thread's
    return stream


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 64), 2)
        return file.read().rstrip(b"\0").endswith(GIF_END)


def _pixel_format(container: Container, picture: Picture) -> str:
    """H.264 halves colours, which odd sides cannot be."""
    odd = any(side % 2 for side in picture.shape[:2])
    kind = container.grey if picture.ndim == 2 else container.colours
    return "yuv444p" if odd and kind == "yuv420p" else kind


def _frame(picture: Picture, pixels: str) -> Any:
    """PyAV's frame in these pixels."""
    video_frame = _av().VideoFrame
    if pixels == "pal8":
        indexed = Image.fromarray(picture).quantize(MOST_SHOWN)
        palette = np.full((256, 4), 255, dtype=np.uint8)  # alpha, red, green, blue
        listed = np.asarray(indexed.getpalette(), dtype=np.uint8).reshape(-1, 3)
        palette[: len(listed), 1:] = listed
        return video_frame.from_ndarray((np.asarray(indexed), palette), format="pal8")
    if picture.ndim == 2:
        if pixels == "gray":
            return video_frame.from_ndarray(picture, format="gray")
        picture = np.repeat(picture[..., None], 3, axis=-1)
    return _converted(video_frame.from_ndarray(picture, format="rgb24"), pixels)


def _converted(frame: Any, pixels: str) -> Any:
    """Into other pixels, rounded: FFmpeg truncates otherwise, and everything becomes half a grey darker."""
    from av.video.reformatter import Interpolation as To

    return frame.reformat(format=pixels, interpolation=To.BICUBIC | To.ACCURATE_RND | To.FULL_CHR_H_INT | To.FULL_CHR_H_INP)


def _container(path: Path) -> Container:
    return CONTAINERS[path.suffix.lower()]


def _av() -> Any:
    """PyAV, silent. Raises BadInput where it is not installed."""
    if find_spec("av") is None:
        raise BadInput('videos need PyAV, which is not installed; pip install "score-fusion[video]"')
    import av

    av.logging.set_level(None)
    return av


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """What FFmpeg says of a file as a `BadInput` of one line."""
    try:
        yield
    except (BadInput, OSError) as error:
        if isinstance(error, BadInput) or error.filename == str(path):
            raise
        raise _unusable(path, error) from error
    except Exception as error:  # codecs fail in many ways
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> BadInput:
    reason = (str(error).splitlines() or [""])[0].replace(str(path), path.name)[:120]
    return BadInput(f"{path}: is no video that can be used ({type(error).__name__}: {reason}); export it again")


KIND = Kind(read_video, write_video)
