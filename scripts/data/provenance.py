# SPDX-License-Identifier: Apache-2.0
"""What produced a result, as DICOM and its readers want to be told."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .. import bundle_version
from ..files import sha256
from ..measurement import Task

NOT_FOR_DIAGNOSIS = "not for diagnosis"
LONGEST_TITLE = 64  # characters of a DICOM long string


@dataclass(frozen=True)
class Provenance:
    """model: its name; weights: their file; nfe: network evaluations per plane and sample."""

    model: str
    weights: str
    task: Task
    nfe: int
    samples: int
    seed: int

    @cached_property
    def sha256(self) -> str:
        """Of the weights' file."""
        return sha256(Path(self.weights).expanduser())

    @cached_property
    def version(self) -> str:
        """Of this bundle."""
        return bundle_version()

    @property
    def title(self) -> str:
        """As "AI translation t1ce -> flair, not for diagnosis": at most 64 characters."""
        return f"{f'AI {self.task.title}'[: LONGEST_TITLE - len(NOT_FOR_DIAGNOSIS) - 2]}, {NOT_FOR_DIAGNOSIS}"

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        run = f"NFE {self.nfe}, samples {self.samples}, seed {self.seed}"
        return (
            f"Synthetic image, {NOT_FOR_DIAGNOSIS}: {self.task.title} by fused 2D diffusion models, "
            f"score-fusion {self.version}, model {self.model}, weights sha256 {self.sha256}, {run}"
        )
