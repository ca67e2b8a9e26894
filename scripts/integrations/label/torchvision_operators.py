# SPDX-License-Identifier: Apache-2.0
"""Lets torchvision, of which there is no build for the CPU build of torch, be imported; a `.pth` file loads this at start.

torchvision names two of its compiled operators while it is imported. Where they cannot be loaded they are declared here, just
before; MONAI Label calls neither.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class BeforeTorchvision(MetaPathFinder):
    """Declares the operators when torchvision is about to be imported, and not earlier: torch takes a second to load."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Finds nothing itself."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare()


def declare() -> None:
    """Declare the operators, unless torch was built for CUDA: for that build torchvision brings them."""
    import torch

    if torch.version.cuda is None:
        operators = torch.library.Library("torchvision", "DEF")
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        kept.append(operators)


kept: list[object] = []  # an operator is gone with its library
sys.meta_path.insert(0, BeforeTorchvision())
