# SPDX-License-Identifier: Apache-2.0
"""The task: which volumes are given, which is wanted, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .as_scanned import AsScanned

if TYPE_CHECKING:
    from .degradations import Degradation

KINDS = ("super-resolution", "thick slice", "slices as scanned", "thick planes", "translation", "both", "unknown task")
SPACE, LOOP = ("x", "y", "z"), ("x", "y", "t")  # axes of volumes
Blocks = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Task:
    """What a run turns into what. Two tasks are equal when names and blocks are, however the measurement is used
    and whatever people call it.

    conditions: modalities that are given, or, where several scans are one measurement, perhaps their names, one file each;
    target: the modality that is wanted; degradation: what the target was measured by, None when nothing of it was, which blocks
    of 1x1x1 say too; title: one line for people, by default from the others. blocks: voxels averaged along (H, W, D), of every
    scan; scanned: the settings of `AsScanned`, where each scan has its own; axes: their names, x y z or x y t.

    >>> Task(["t1"], "t1", BlockAverage((1, 1, 4))).title
    'thick slice 1x1x4 of t1'
    """

    conditions: Sequence[str]
    target: str
    degradation: Degradation | AsScanned | None = field(compare=False)
    title: str = field(default="", compare=False)
    axes: Sequence[str] = SPACE
    blocks: Blocks = field(init=False)
    scanned: Mapping[str, Any] | None = field(init=False)

    def __post_init__(self) -> None:
        scans = () if self.degradation is None else tuple(scan.factors for scan in self.degradation.scans)
        blocks = scans if any(factor > 1 for scan in scans for factor in scan) else ()
        kept = self.degradation if blocks or isinstance(self.degradation, AsScanned) else None
        self._set(conditions=tuple(self.conditions), axes=tuple(self.axes), blocks=blocks, degradation=kept)
        self._set(scanned=kept.content() if isinstance(kept, AsScanned) else None)
        self._set(title=self.title or self._title())

    def _set(self, **values: Any) -> None:
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Task:
        """The task of `content()`, or of a record that holds it whole, or, as up to 0.6, in its `system`.

        There `block` is that of a single scan and `scans` are the blocks of several. Raises BadInput for impossible blocks.
        """
        parts = (content.get(key) for key in ("task", "system"))
        told = next((part for part in parts if isinstance(part, Mapping)), content)
        one = [told["block"]] if told.get("block") else []
        use = {key: told.get(key) is not False for key in ("smooth", "consistency")}
        measurement: Degradation | AsScanned | None
        if isinstance(scanned := told.get("scanned"), Mapping):
            measurement = AsScanned(**{**scanned, **use})
        else:
            blocks = told.get("blocks", told.get("scans") or one)
            measurement = _degradation(blocks, **use, periodic=told.get("periodic") is True)
        given, goal, title = (told.get(key) for key in ("conditions", "target", "title"))
        return cls(given or (), goal or "", measurement, title or "", told.get("axes") or SPACE)

    def content(self) -> dict[str, Any]:
        """All of it as plain values; smooth and consistency are None where nothing was measured."""
        use = {key: getattr(self.degradation, key, None) for key in ("smooth", "consistency")}
        blocks = [list(block) for block in self.blocks]
        more: dict[str, Any] = {} if self.scanned is None else {"scanned": dict(self.scanned)}
        more |= {} if self.axes == SPACE else {"axes": [*self.axes]}
        more |= {"periodic": True} if getattr(self.degradation, "periodic", False) else {}
        return {
            "title": self.title,
            "conditions": [*self.conditions],
            "target": self.target,
            "blocks": blocks,
            **more,
            **use,
        }

    @property
    def scans(self) -> Sequence[Degradation | AsScanned]:
        """The scans of the target, one coarse file each; none when nothing of it was measured."""
        return () if self.degradation is None else self.degradation.scans

    @property
    def _named_scans(self) -> int:
        """How many conditions, from the first on, are the names of single scans."""
        return len(self.blocks) if self.target not in self.conditions and 1 < len(self.blocks) <= len(self.conditions) else 0

    @property
    def measured(self) -> bool:
        """Whether a condition is a measurement of the target."""
        return (bool(self.blocks) or self.scanned is not None) and (self.target in self.conditions or self._named_scans > 0)

    @property
    def others(self) -> tuple[str, ...]:
        """Conditions of another contrast than the target."""
        return tuple(condition for condition in self.conditions[self._named_scans :] if condition != self.target)

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if not (self.conditions and self.target):
            return "unknown task"
        if not self.measured:
            return "translation"
        if self.others:
            return "both"
        if self.scanned is not None:
            return "slices as scanned"
        if len(self.blocks) > 1:
            return "thick planes"
        return "thick slice" if sum(factor > 1 for factor in self.blocks[0]) == 1 else "super-resolution"

    def _title(self) -> str:
        kind, size = self.kind, " + ".join("x".join(map(str, block)) for block in self.blocks)
        if kind == "unknown task":
            return kind
        if self.scanned is not None:
            simulated = self.scanned["simulated"]
            return (
                f"{kind} of {self.target}"
                if simulated is None
                else f"slices {'x'.join(f'{n:g}' for n in simulated)} of {self.target}"
            )
        if kind == "translation":
            return f"{kind} {' + '.join(self.conditions)} -> {self.target}"
        if kind == "both":
            return f"{kind} {self.target} {size} + {' + '.join(self.others)} -> {self.target}"
        return f"{kind} {size} of {self.target}"


def _degradation(
    blocks: Sequence[Sequence[int]], *, smooth: bool, consistency: bool, periodic: bool
) -> Degradation | None:  # fmt: skip
    from .degradations import BlockAverage, ThickScans  # here: who only tells what was done needs no PyTorch

    if len(blocks) > 1:
        return ThickScans(blocks, smooth, consistency)
    return BlockAverage(blocks[0], smooth, consistency, periodic=periodic) if blocks else None
