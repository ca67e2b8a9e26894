# SPDX-License-Identifier: Apache-2.0
"""Fuses denoisers that were trained on different conditions: section 3.4 of Zhu et al. 2025, without training them again."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import BadInput
from .score_fusion import Member, ScoreFusion

RESIDUAL_SCALE = 0.1  # lambda of Eq. 6 for modalities


class ModalityMember(Member):
    """A plane denoiser that knows some of the conditions, and diffuses a residual to the first of those.

    seen: their places among all `given` conditions; scale: of the diffused residual, r = scale (image - b_0), 0 for images.
    The state of the whole is a residual to condition 0; the member's is r + d with d = scale (b_0 - b_m). So it is shown
    `x_t + sqrt(gamma) d`, and what it says is brought back: epsilon stays, x_0 loses d, v gains `sqrt(1 - gamma) d`.
    """

    def __init__(
        self, plane: str, seen: Sequence[int], size: str, *, given: int, slab: int, scale: float, prediction: str
    ) -> None:  # fmt: skip
        super().__init__(plane, len(seen), size, slab=slab, features=False)
        self.seen, self.given = list(seen), given
        self.scale = scale
        self.of_x_0, self.of_v = float(prediction == "x_0"), float(prediction == "v")

    def forward(self, x: Tensor, x_t: Tensor, gamma: Tensor, slice_batch: int) -> tuple[Tensor, list[Tensor]]:
        """As `Member`; x holds all given conditions."""
        own = [x[:, index : index + 1] for index in self.seen]
        level = gamma.view(-1, 1, 1, 1, 1)
        apart = self.scale * (x[:, :1] - own[0])
        own.append(x[:, self.given :])
        estimate, aligned = self.denoise(torch.cat(own, dim=1), x_t + level.sqrt() * apart, gamma, slice_batch)
        return estimate + ((1.0 - level).sqrt() * self.of_v - self.of_x_0) * apart, aligned


class ModalityFusion(ScoreFusion):
    """Planes of every subset of conditions, fused by a 3D network without features: `subsets` x `planes` members.

    subsets: for each group of planes the conditions it was trained on, e.g. [[0], [1]]; sigma_data, prediction,
    residual: those of the process, which all members were trained with. fusion=False averages the members.
    Raises BadInput when no subset holds condition 0, which the result starts from.
    """

    def __init__(
        self, planes: Sequence[str], subsets: Sequence[Sequence[int]], size: str = "small", *, slab: int = 1,
        fusion: bool = True, sigma_data: float = 1.0, prediction: str = "v", residual: bool = True,
    ) -> None:  # fmt: skip
        places = [place for subset in subsets for place in subset]
        if 0 not in places or not all(subsets):
            raise BadInput(f"subsets {list(subsets)}: each needs a condition, and one of them condition 0")
        given, every = max(places) + 1, [plane for _ in subsets for plane in planes]
        super().__init__(every, given, size, slab=slab, fusion=fusion, features=False, residual_scale=RESIDUAL_SCALE)
        scale = 0.5 / sigma_data if residual else 0.0
        self.members = nn.ModuleList(
            ModalityMember(plane, seen, size, given=given, slab=slab, scale=scale, prediction=prediction)
            for seen in subsets for plane in planes
        )  # fmt: skip
        for member in self.members:
            member.requires_grad_(not fusion)
