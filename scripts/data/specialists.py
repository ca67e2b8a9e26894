# SPDX-License-Identifier: Apache-2.0
"""Which weights suit a scan: those of a task of its own, whose training volumes were like it, or those for all scans.

Without PyTorch, as the doctor asks here too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..bundle import bundle_root
from ..errors import BadInput
from ..files import sha256
from ..limits import limits_of
from ..measurement.slices import Slices
from ..models import listed_sums
from .advice import USUAL, asked_of
from .seen import DoubtUnseend, Seen, Vector, channel_properties, read_seen

logger = logging.getLogger(__name__)
SPECIALIST = "specialist"  # the meta of a volume that names the task whose weights suit it


class Specialist(NamedTuple):
    """A task whose weights may serve a scan better than those for all: its condition, blocks averaged along (H, W, D), their
    file, the voxel in mm that these saw, and what else of their training volumes.
    """

    task: str
    condition: str
    blocks: tuple[int, int, int]
    weights: str
    trained_mm: float
    seen: Seen

    @classmethod
    def of(cls, task: str) -> Specialist:
        """By the name of a task of a single scan. Raises BadInput where nothing says what its weights saw."""
        expected = asked_of([task])[1]
        if len(expected.blocks) != 1 or not (known := read_seen(expected.weights)):
            raise BadInput(f"task {task}: nothing says what its weights saw (score-fusion seen), so they cannot be chosen")
        ((condition, seen),), (h, w, d) = known.items(), expected.blocks[0]
        return cls(task, condition, (h, w, d), expected.weights, expected.trained_mm, seen)

    def suits(self, axes: Sequence[Slices | None], spacing: Sequence[float], found: Vector) -> bool:
        """Whether a scan is like what they saw.

        axes: its sampling along right, anterior, superior; spacing: of its voxels along them, in mm; found: its `properties`.
        """
        blocks = [1 if axis is None else axis.whole for axis in axes]
        usual = [abs(mm / block / self.trained_mm - 1) <= USUAL for mm, block in zip(spacing, self.blocks, strict=True)]
        return tuple(blocks) == self.blocks and all(usual) and self.seen.like(found)


class ChooseWeightsd(DoubtUnseend):
    """Names in meta `specialist` of a case that `LoadVolumesd` read the first task whose weights suit it, none for others.

    weights: those for all scans; specialists: names of tasks, if any, which only weights that ship give way to; steps: of the
    sampler, which a specialist has to bear (`Limits`); adapt: minutes, 0 for none, for these adapt the weights for all scans.
    The rest as for `DoubtUnseend`, which speaks for the weights that were chosen.
    """

    def __init__(
        self, weights: str | Path | None, degradation: Any, specialists: Sequence[str] | None = None, *, steps: int = 1,
        adapt: float = 0.0, force: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(weights, degradation, force=force)
        self.specialists = candidates(weights, specialists, steps=steps, adapt=adapt)

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The same case; the log says which weights were chosen."""
        if (chosen := self._chosen(data[self.key])) is None:
            return super().__call__(data)
        specialist, found = chosen
        data[self.key].meta[SPECIALIST] = specialist.task
        logger.info("case %s: %s, of task %s, saw such scans", data.get("case"), Path(specialist.weights).name, specialist.task)
        return self.judged(data, {specialist.condition: specialist.seen}, [found])

    def _chosen(self, image: Any) -> tuple[Specialist, Vector] | None:
        if not self.specialists:
            return None
        operator, axes = self.degradation.of(image), np.asarray(image.affine)[:3, :3]
        if list(np.abs(axes).argmax(axis=0)) != [0, 1, 2]:  # the slices lie across another axis than those that weights saw
            return None
        spacing = np.linalg.norm(axes, axis=0) * operator.factors
        (found,) = channel_properties(image, operator)
        return next(((one, found) for one in self.specialists if one.suits(operator.axes, spacing, found)), None)


def candidates(
    weights: str | Path | None, specialists: Sequence[str] | None, *, steps: int = 1, adapt: float = 0.0
) -> list[Specialist]:
    """Who may answer in place of these weights; arguments as for `ChooseWeightsd`."""
    known = [] if adapt or weights is None or not is_shipped(weights) else map(Specialist.of, specialists or ())
    return [one for one in known if _bears(one, steps)]


def is_shipped(weights: str | Path) -> bool:
    """Whether a file is one of `models`, or a copy of one under its name, as in a folder that a package has elsewhere."""
    file, models = Path(weights).expanduser().resolve(), Path(bundle_root(), "models").resolve()
    if file.parent == models:
        return True
    return file.is_file() and (listed := listed_sums(models).get(file.name)) is not None and listed == sha256(file)


def _bears(specialist: Specialist, steps: int) -> bool:
    try:
        limits_of(specialist.weights, steps=steps)
    except BadInput:
        return False
    return True
