# SPDX-License-Identifier: Apache-2.0
"""A volume that first teaches the network what it looks like."""

import logging
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ..errors import BadInput
from ..measurement.channels import conditions_and_mask
from ..measurement.slice_profile import SliceProfile
from ..networks.engine import release_unets
from ..networks.score_fusion import ScoreFusion
from .fused_score_inferer import FusedScoreInferer
from .precision import has_bfloat16

logger = logging.getLogger(__name__)


class AdaptingInferer(FusedScoreInferer):
    """Adapts a copy of the planes to every volume first, for so many minutes, 0 for not at all (`training.adaptation`).

    The other arguments are those of `FusedScoreInferer`.
    """

    def __init__(self, *args: Any, minutes: float = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        if minutes < 0:
            raise BadInput(f"adapt {minutes:g}: a number of minutes, 0 for not at all")
        self.minutes = minutes

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, case: str = "", **kwargs: Any
    ) -> Tensor:
        """As `FusedScoreInferer`; a volume that teaches nothing is translated as it is, and a doubt says why."""
        own, reason = network, ""
        if self.minutes:
            try:
                own = self._adapted(inputs, network)
                reason = "its held-out slices came out no better" if own is network else ""
            except BadInput as error:
                reason = str(error)
        result = super().__call__(inputs, own, *args, case=case, **kwargs)
        if reason:
            self.doubts.append(f"not adapted, because {reason}")
            logger.warning(f"case {case}: {self.doubts[-1]}")
        return result

    def _adapted(self, inputs: Tensor, network: nn.Module) -> nn.Module:
        from ..training.adaptation import Adaptation  # here: who adapts nothing trains nothing

        operator = self.measured_by(inputs)
        if not isinstance(operator, SliceProfile) or not isinstance(network, ScoreFusion):
            raise BadInput("only a fusion of planes for slices as scanned can be; take task any")
        scan = inputs.as_subclass(Tensor)
        scale = conditions_and_mask(scan, operator)[2]
        release_unets(network)  # engines cannot be copied
        own = deepcopy(network)
        adaptation = Adaptation(scan, operator, self.diffusion, scale, half=has_bfloat16(scan.device))
        return own if adaptation(own, self.minutes, self.seed) else network
