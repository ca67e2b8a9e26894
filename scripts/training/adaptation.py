# SPDX-License-Identifier: Apache-2.0
"""Planes that learn from the scan itself: its sharp slices, degraded along an axis within them by its own profile."""

import logging
import math
import time

import numpy as np
import torch
from torch import Tensor, nn

from ..data.random_scans import OwnPatch
from ..diffusion import Diffusion
from ..errors import BadInput
from ..inferers.precision import autocast
from ..measurement.intensity import IntensityRange
from ..measurement.slice_profile import SliceProfile
from ..networks.score_fusion import ScoreFusion

logger = logging.getLogger(__name__)

PATCH, BATCH, LEARNING_RATE = 96, 8, 1e-4
HELD_OUT, JUDGED = 10, 64  # every such slice is held out; patches of them that decide
TIMES_JUDGED = 12  # within the time that there is
# Of the way that the weights went: planes that fit slices as they lie in the scan are needed for those across it, and beside a
# fusion that did not learn. Wortsman et al. 2022 (arXiv:2109.01903) find half the way robust; measured in docs/decisions.md.
HALF = 0.5
State = dict[str, Tensor]
LEAST, MARGIN = 32, 6  # voxels of a patch along the degraded axis; spacings around it that its slices reach over
PERIOD = 9.0  # seconds between lines


class Adaptation:
    """What a scan (1, 1, H, W, D), laid out on its fine grid, teaches: slices across the last axis, none along the others.

    diffusion: as the network was trained; scale: intensities as the network sees them; half: in bfloat16. Raises BadInput where
    the scan has no slices to learn from.
    """

    def __init__(
        self, scan: Tensor, operator: SliceProfile, diffusion: Diffusion, scale: IntensityRange, *, half: bool
    ) -> None:
        thick = [axis for axis in operator.axes if axis is not None]
        if len(thick) != 1 or operator.axes[2] is None:
            raise BadInput("there is nothing to adapt to: slices that are sharp are needed, thick along one axis alone")
        low, high = (float(end[0, 0]) for end in (scale.low, scale.high))
        slices = (operator.measure(scan)[0, 0].float().cpu() - low) / (high - low)  # (H, W, number)
        held_out = torch.arange(slices.shape[2]) % HELD_OUT == HELD_OUT // 2
        self.training, self.judged = slices[..., ~held_out], slices[..., held_out]
        if not self.judged.shape[2]:
            raise BadInput(f"there is too little to adapt to: {slices.shape[2]} slices, {HELD_OUT} at least are needed")
        side = min(slices.shape[:2])
        along = min(PATCH, side - math.ceil(MARGIN * thick[0].spacing))
        if along < LEAST:
            raise BadInput(f"there is too little to adapt to: slices of {slices.shape[0]}x{slices.shape[1]} voxels")
        self.patch = OwnPatch([min(PATCH, side), along], thick[0])
        self.diffusion, self.half, self.device = diffusion, half, scan.device

    def __call__(self, network: ScoreFusion, minutes: float, seed: int = 0) -> bool:
        """Fine-tune the planes in place, for so many minutes, and keep half of what changed.

        True where held-out slices came out better, else all stays as it was.

        Raises BadInput unless the planes share their weights, as those of task any.
        """
        planes = [member.get_submodule("denoiser") for member in network.members]
        before = _copied(planes[0])
        if any(not torch.equal(value, before[key]) for plane in planes for key, value in plane.state_dict().items()):
            raise BadInput("planes that differ are not adapted; take the weights of task any")
        error = self._error(planes[0])
        with torch.enable_grad():
            steps, best = self._train(planes[0], minutes * 60, np.random.default_rng(seed))
        planes[0].load_state_dict(_between(before, best, HALF))
        after = self._error(planes[0])
        line = f"adapted for {minutes:g} min, {steps} steps: error of held-out slices {error:.4g} before, {after:.4g} after"
        logger.info(line if after < error else f"{line}: not better, so the weights stay as they were")
        kept = _copied(planes[0]) if after < error else before
        for plane in planes:
            plane.load_state_dict(kept)
        return after < error

    def _train(self, plane: nn.Module, seconds: float, rng: np.random.Generator) -> tuple[int, State]:
        """Steps, and the weights when the error was least of the times that the plane was judged."""
        start = said = time.monotonic()
        plane.requires_grad_(True)
        optimizer, steps, judged = torch.optim.Adam(plane.parameters(), lr=LEARNING_RATE), 0, 0
        least, best = float("inf"), _copied(plane)
        while (share := (time.monotonic() - start) / seconds) < 1 or not judged:
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * max(1 - share, 0)
            loss = self._loss(plane, self._batch(self.training, rng, BATCH))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if share * TIMES_JUDGED > judged:  # few slices are soon known by heart
                judged += 1
                if (error := self._error(plane)) < least:
                    least, best = error, _copied(plane)
            if time.monotonic() - said > PERIOD:
                said = time.monotonic()
                logger.info(f"adapting: {share:.0%}, step {steps}, {max(seconds * (1 - share), 0):.0f} s left")
        plane.requires_grad_(False)
        return steps, best

    @torch.no_grad()
    def _error(self, plane: nn.Module) -> float:
        """Mean over the same patches of held-out slices."""
        rng = np.random.default_rng(0)
        losses = [self._loss(plane, self._batch(self.judged, rng, BATCH)) for _ in range(JUDGED // BATCH)]
        return float(torch.stack(losses).mean())

    def _batch(self, slices: Tensor, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        samples = [self.patch(slices, rng) for _ in range(count)]
        return {key: torch.stack([sample[key] for sample in samples]).to(self.device) for key in samples[0]}

    def _loss(self, plane: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Of the answer in one step."""
        x_0, gamma = self.diffusion.encode(batch["label"], batch["base"]), torch.zeros(len(batch["label"]), device=self.device)
        with autocast(x_0.device, self.half):
            output = plane(batch["image"], torch.zeros_like(x_0), gamma).float()
        return (self.diffusion.x_0(output, torch.zeros_like(x_0), gamma) - x_0).square().mean()


def _between(first: State, second: State, share: float) -> State:
    return {key: torch.lerp(value, second[key], share) for key, value in first.items()}


def _copied(plane: nn.Module) -> State:
    return {key: value.clone() for key, value in plane.state_dict().items()}
