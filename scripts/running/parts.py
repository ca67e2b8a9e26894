# SPDX-License-Identifier: Apache-2.0
"""Which modules of a network a case is spent in, and what a call of each is worth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from ..inferers.fused_score_inferer import FusedScoreInferer
from ..measurement.planes import SPACE_TIME
from ..networks.plane_denoiser import POSITION_CHANNELS
from ..networks.presets import size_named
from ..networks.score_fusion import ScoreFusion, filled
from ..networks.work import multiplications, space_time_multiplications


class Part(NamedTuple):
    """A module that is called `calls` times in a case, each time for so many pieces, each worth so much work.

    within: what it calls for some of them at once, a batch along its input's first axis, where it does.
    """

    name: str  # of a piece
    module: nn.Module
    calls: int
    pieces: int = 1
    work: float = 1.0
    within: nn.Module | None = None


def parts_of(network: nn.Module, inferer: Any, shape: Sequence[int]) -> list[Part]:
    """Of a network that an inferer asks about inputs of a shape (B, C, H, W, D); none where nobody knows how often it does.

    Planes and fusion are told apart by arithmetic, so that whatever computes them may take the place of their U-Nets.
    """
    if not isinstance(inferer, FusedScoreInferer):
        return []
    calls = inferer.calls()
    if not isinstance(network, ScoreFusion):
        return [Part("evaluation", network, calls.total())]
    batch, conditions, *given = shape
    sides = inferer.seen(given)
    size, seen = size_named(network.size), conditions + POSITION_CHANNELS
    parts = []
    for index, member in enumerate(network.members):
        if member.plane == SPACE_TIME:
            work = batch * space_time_multiplications(size.plane, seen + 1, sides)
            parts.append(Part("loop", member, calls[None] + calls[index], 1, work))
            continue
        axis, denoiser = int(member.axis) - 2, member.get_submodule("denoiser")  # type: ignore[arg-type]
        slices = batch * filled(sides[axis], int(member.group))  # type: ignore[arg-type]
        work = multiplications(size.plane, seen + 1, [side for other, side in enumerate(sides) if other != axis])
        parts.append(Part("slice", member, calls[None] + calls[index], slices, work, getattr(denoiser, "unet", None)))
    if network.fused:
        work = batch * multiplications(size.fusion, seen + 1 + len(parts), sides)
        parts.append(Part("fusion", network.fusion, calls[None], 1, work))
    return [part for part in parts if part.calls]
