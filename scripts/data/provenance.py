# SPDX-License-Identifier: Apache-2.0
"""What produced a result, as DICOM and its readers want to be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..bundle import bundle_version
from ..files import sha256
from ..limits import limits_of
from ..measurement import Task

NOT_FOR_DIAGNOSIS = "not for diagnosis"
LONGEST_TITLE = 64  # characters of a DICOM long string


@dataclass(frozen=True)
class Provenance:
    """model: its name; weights: their file; nfe: network evaluations per plane and sample.

    conditions, target: in place of a task in configs of 0.6, until 0.8. unseen: how a case is unlike what the weights saw.
    adapt: minutes in which the planes learned from the scan itself first.
    """

    model: str
    weights: str
    nfe: int
    samples: int
    seed: int
    task: Task = None  # type: ignore[assignment]
    conditions: Sequence[str] = ()
    target: str = ""
    unseen: Sequence[str] = ()
    adapt: float = 0.0

    def __post_init__(self) -> None:
        if self.task is None:
            title = f"{self.target} super-resolution" if self.target in self.conditions else ""
            object.__setattr__(self, "task", Task(self.conditions, self.target, None, title))

    @cached_property
    def sha256(self) -> str:
        """Of the weights' file."""
        return sha256(Path(self.weights).expanduser())

    @property
    def title(self) -> str:
        """As "AI translation t1ce -> flair, not for diagnosis": at most 64 characters."""
        return f"{f'AI {self.task.title}'[: LONGEST_TITLE - len(NOT_FOR_DIAGNOSIS) - 2]}, {NOT_FOR_DIAGNOSIS}"

    @property
    def sentence(self) -> str:
        """All of it in one line; what warns of it comes first, for readers cut long texts off."""
        run = f"NFE {self.nfe}, samples {self.samples}, seed {self.seed}"
        run += f", planes adapted to the scan for {self.adapt:g} min" if self.adapt else ""
        return (
            f"{self.warning}Synthetic image, {NOT_FOR_DIAGNOSIS}: {self.task.title} by fused 2D diffusion models, "
            f"score-fusion {bundle_version()}, model {self.model}, weights sha256 {self.sha256}, {run}"
        )

    @property
    def warning(self) -> str:
        """Why the result of a case is not to be trusted, before other text; empty where nothing speaks against it."""
        return "".join(f"DOUBTED: {line}. " for line in (*self.unseen, *self.caveats))

    @cached_property
    def caveats(self) -> list[str]:
        """What was measured to be wrong with these weights (`Limits`), if they ship and anything was."""
        return list(filter(None, [limits_of(Path(self.weights).expanduser()).caveat]))
