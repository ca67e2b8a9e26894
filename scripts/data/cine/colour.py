# SPDX-License-Identifier: Apache-2.0
"""Colour by luminance: what is restored is the brightness; what colour adds to it is kept, as fine as it was."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, of red, green and blue
Picture = npt.NDArray[np.uint8]


def luminance(picture: Picture) -> npt.NDArray[np.float32]:
    """(H, W) or (H, W, 3) to (H, W), in the same units."""
    if picture.ndim == 2 or is_grey(picture):
        return (picture if picture.ndim == 2 else picture[..., 0]).astype(np.float32)
    return picture.astype(np.float32) @ LUMINANCE


def is_grey(picture: Picture) -> bool:
    """Whether red, green and blue (H, W, 3) are the same everywhere."""
    return picture.ndim == 2 or bool((picture == picture[..., :1]).all())


def recolour(
    lights: Iterable[npt.NDArray[np.float32]], pictures: Iterable[Picture], positions: Sequence[float]
) -> Iterator[Picture]:
    """Frames (H, W, 3) of these luminances (H, W), with the colours of a film.

    pictures: its frames (h, w, 3), which show what `lights` show, edge to edge; positions: of the lights among them, rising
    from 0. Colours between two frames are in proportion, and after the last its own.
    """
    for light, chroma in zip(lights, _between((_chroma(picture) for picture in pictures), positions), strict=True):
        size = light.shape[1], light.shape[0]
        finer = [Image.fromarray(chroma[..., k]).resize(size, Image.Resampling.BILINEAR) for k in range(3)]
        yield to_bytes(light[..., None] + np.stack([np.asarray(one) for one in finer], axis=-1))


def to_bytes(values: npt.NDArray[Any]) -> Picture:
    """Rounded to 0...255, and cut there."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _chroma(picture: Picture) -> npt.NDArray[np.float32]:
    """Red, green and blue less the luminance."""
    return picture.astype(np.float32) - luminance(picture)[..., None]


def _between(frames: Iterator[npt.NDArray[np.float32]], positions: Sequence[float]) -> Iterator[npt.NDArray[np.float32]]:
    """Frames at positions among others, of which no more than two are held."""
    index, before = 0, next(frames)
    after = next(frames, before)
    for position in positions:
        while position > index + 1:
            index, before = index + 1, after
            after = next(frames, before)
        share = np.float32(position - index)
        yield before + share * (after - before) if share else before
    for _ in chain(frames):  # to the end, where a damaged film is noticed
        pass
