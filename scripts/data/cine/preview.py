# SPDX-License-Identifier: Apache-2.0
"""A small animated picture of cines side by side: input, result and truth of one slice."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ...errors import BadInput
from ...files import whole
from ..provenance import NOT_FOR_DIAGNOSIS
from .cine import Cine
from .video import encode

orientations: Any = nib.orientations  # has no types

HEIGHTS = (256, 224, 192, 160, 128, 96, 64)  # of a panel in pixels, tried in turn
MOST_BYTES = 1_000_000
SLACK = 1.2  # times the height that ought to be small enough
SHOWN = (0.005, 0.995)  # shares of voxels below black and below white
GREYS = 64  # that a GIF tells apart: half the size of 256, and no step is seen
CRF = 18  # of H.264: no loss is seen
STRIP, GAP, TEXT = 18, 4, 12  # of labels, between panels, of letters; in pixels
CAPTION = f"synthetic, {NOT_FOR_DIAGNOSIS}"
FLIPPED = {"R", "A", "S"}  # an image shows left, back and feet at its far ends


def write_preview(panels: Mapping[str, Cine], path: Path, *, index: int = 0) -> None:
    """Write a GIF or MP4 of a slice of each cine, by its label, in the order given; a frame lasts as long as it did.

    All are shown at one size, pixels of coarse ones as squares, in the window of the last. It loops, and is smaller than
    1 MB, for which panels shrink. Raises BadInput for another suffix, and where 1 MB does not hold it.
    """
    finest = max(panels.values(), key=lambda cine: len(cine.frame_times))
    times = finest.frame_times
    step = float(times[-1] - times[0]) / (len(times) - 1)
    enough = float(HEIGHTS[0])
    for height in HEIGHTS:
        if height > enough:
            continue
        frames = list(_frames(panels, times, index, height))
        if len(content := _content(frames, step, path)) < MOST_BYTES:
            with whole(path) as part:
                part.write_bytes(content)
            return
        enough = SLACK * height * (MOST_BYTES / len(content)) ** 0.5  # bytes go with pixels, roughly
    raise BadInput(f"{path}: {len(times)} frames do not fit in {MOST_BYTES / 1e6:g} MB; cut the loops shorter")


def _content(frames: Sequence[Image.Image], step: float, path: Path) -> bytes:
    if path.suffix.lower() == ".gif":
        return _gif(frames, step)
    if path.suffix.lower() != ".mp4":
        raise BadInput(f"{path}: a film is a .gif or an .mp4; end its name so")
    packed = io.BytesIO()
    encode((np.asarray(frame) for frame in frames), step, packed, suffix=path.suffix, crf=CRF)
    return packed.getvalue()


def _gif(frames: Sequence[Image.Image], step: float) -> bytes:
    """Times are told in hundredths of a second; what rounding takes from one frame the next one gets."""
    ends = np.rint(np.arange(len(frames) + 1) * step * 100).astype(int) * 10
    packed = io.BytesIO()
    few = [frame.point([round(grey / 255 * (GREYS - 1)) * 255 // (GREYS - 1) for grey in range(256)]) for frame in frames]
    few[0].save(packed, "GIF", save_all=True, append_images=few[1:], duration=np.diff(ends).tolist(), loop=0)
    return packed.getvalue()


def _frames(panels: Mapping[str, Cine], times: Sequence[float] | Any, index: int, height: int) -> Iterator[Image.Image]:
    """Whole pictures, even sides, as films want them."""
    last = [*panels.values()][-1]
    low, high = np.quantile(last.voxels[:, :, index], SHOWN)
    turns = _turns(next(iter(panels.values())))  # of all: a finer video has another affine than none
    size = {label: _size(cine, height) for label, cine in panels.items()}
    width = sum(side[0] + GAP for side in size.values()) - GAP
    font = ImageFont.load_default(TEXT)
    for time in times:
        picture = Image.new("L", (width + width % 2, height + 2 * STRIP))
        draw, left = ImageDraw.Draw(picture), 0
        for label, cine in panels.items():
            panel = Image.fromarray(np.ascontiguousarray(_panel(cine, time, index, (low, high))[turns].T))
            picture.paste(panel.resize(size[label], Image.Resampling.NEAREST), (left, STRIP))
            draw.text((left + size[label][0] // 2, STRIP // 2), label, 255, font, anchor="mm")
            left += size[label][0] + GAP
        draw.text((width // 2, height + STRIP * 3 // 2), CAPTION, 160, font, anchor="mm")
        yield picture


def _panel(cine: Cine, time: float, index: int, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """(X, Y) of the frame that is shown at a time."""
    frame = max(int(np.searchsorted(cine.frame_times, time + 1e-6, side="right")) - 1, 0)
    grey = (cine.voxels[:, :, index, frame] - window[0]) / max(window[1] - window[0], 1e-6) * 255
    return grey.clip(0, 255).astype(np.uint8)


def _turns(cine: Cine) -> tuple[slice, ...]:
    """What makes x point left and y to the back, or to the feet; a video is upright as it is."""
    if np.array_equal(cine.affine, np.eye(4)):
        return slice(None), slice(None)
    ends = orientations.aff2axcodes(cine.affine)[:2]
    return tuple(slice(None, None, -1 if end in FLIPPED else 1) for end in ends)


def _size(cine: Cine, height: int) -> tuple[int, int]:
    """Width and height in which pixels have their own proportions."""
    sides = np.linalg.norm(cine.affine[:3, :2], axis=0) * cine.voxels.shape[:2]
    return max(round(height * sides[0] / sides[1]), 1), height
