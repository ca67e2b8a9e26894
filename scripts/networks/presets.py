# SPDX-License-Identifier: Apache-2.0
"""Sizes of the networks: one flat table, a line per size."""

from typing import NamedTuple

from ..errors import BadInput


class UNetSize(NamedTuple):
    """Shape of a U-Net: channels per level are `width * multiplier`, `blocks` residual blocks a level (+1 in the decoder)."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    groups: int
    heads: int  # of the one attention block in the middle; 0 for none
    dropout: float
    fold: int = 1  # voxels a side that become channels first: coarser maps, wider and faster convolutions


class Size(NamedTuple):
    """The plane denoisers and the fusion network of one preset."""

    plane: UNetSize
    fusion: UNetSize


_PALETTE = UNetSize(64, (1, 2, 4, 8), 2, 32, 16, 0.2)
_COMPACT = UNetSize(48, (1, 2), 1, 8, 0, 0.0, fold=2)
SIZES = {
    "published": Size(_PALETTE, UNetSize(64, (1, 2, 3, 4), 2, 32, 0, 0.0)),
    "small": Size(_PALETTE, UNetSize(32, (1, 2, 2, 4), 2, 32, 0, 0.0)),
    "compact": Size(_COMPACT, UNetSize(48, (1, 2), 1, 8, 0, 0.0, fold=2)),
    "compact_small": Size(_COMPACT, UNetSize(24, (1, 2), 1, 8, 0, 0.0, fold=2)),
    "cine": Size(UNetSize(32, (1, 2), 1, 8, 0, 0.0, fold=2), UNetSize(32, (1, 2), 1, 8, 0, 0.0, fold=2)),
    "tiny": Size(UNetSize(8, (1, 2), 1, 4, 2, 0.0), UNetSize(8, (1, 2), 1, 4, 0, 0.0)),  # for tests and dry runs
}


def size_named(name: str) -> Size:
    """The preset called `name`. Raises BadInput that lists the names when there is none."""
    if name not in SIZES:
        raise BadInput(f"no network size '{name}'; choose one of {', '.join(SIZES)}")
    return SIZES[name]
