# SPDX-License-Identifier: Apache-2.0
"""Slices as each scan has them: the operator follows from the header of a file, not from the task."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .slices import SHAPES, Slices, credible, thickest

if TYPE_CHECKING:
    from .slice_profile import SliceProfile

SLICES = "slices"  # the meta of a volume that keeps how its axes are sampled
ISOTROPIC = "isotropic"
FINEST_SHARE = 6  # the finest voxels that isotropic makes: this share of the spacing
SPARSE, DENSE = 0.6, 1.3  # thickness over spacing: of gaps and of overlaps that are doubted
REST = 1e-5  # of a slice
SAME = 0.01  # of two thicknesses, relative
COARSER, LARGEST, USUAL_MM, FACTORS = 1.2, 1.5, 1.0, (1.001, 8.0)  # see `sampling`


class AsScanned:
    """Makes the `SliceProfile` of each volume.

    spacing: of the result: "isotropic" refines axes that are clearly coarser than the finest one to its voxels, but not finer
    than a sixth of their own spacing; or mm, of all axes. thickness: of slices in mm, whatever the file says; without it as the
    file says, else as the spacing. profile: "box" or "gaussian". simulated: spacing of slices along (H, W, D) in voxels of a
    fine volume, of any real number, where a measurement is simulated; gap: the share of it between slices. smooth, consistency:
    as for `BlockAverage`.
    Raises BadInput for what is none of these.
    """

    factors = (1, 1, 1)  # volumes need no size
    positions = "slices"

    def __init__(
        self, spacing: str | float = ISOTROPIC, thickness: float | None = None, *, profile: str = "box",
        simulated: Sequence[float] | None = None, gap: float = 0.0, smooth: bool = True, consistency: bool = True,
    ) -> None:  # fmt: skip
        if spacing != ISOTROPIC and not (isinstance(spacing, int | float) and 0 < spacing < 1000):
            raise BadInput(f"spacing {spacing}: is neither '{ISOTROPIC}' nor a number of mm")
        if thickness is not None and not 0 < thickness < 1000:
            raise BadInput(f"thickness {thickness}: slices have some, in mm")
        if profile not in SHAPES:
            raise BadInput(f"profile {profile}: there is no such slice profile; choose one of {', '.join(SHAPES)}")
        if simulated is not None and (len(simulated) != 3 or min(simulated) < 1 or not 0 <= gap < 1):
            raise BadInput(f"simulated {list(simulated)} with gap {gap}: three numbers of 1 and more, and a share, are needed")
        self.spacing, self.thickness, self.profile = spacing, thickness, profile
        self.simulated = None if simulated is None else tuple(map(float, simulated))
        self.gap, self.smooth, self.consistency = gap, smooth, consistency

    @property
    def simulated_blocks(self) -> Sequence[int]:
        """Voxels that are averaged along each axis where whole blocks are simulated, else 1: volumes need no size."""
        spacings = self.simulated or (1.0, 1.0, 1.0)
        whole = self.profile == "box" and not self.gap and all(spacing.is_integer() for spacing in spacings)
        return [int(spacing) if whole else 1 for spacing in spacings]

    @property
    def scans(self) -> Sequence[AsScanned]:
        """The one scan."""
        return (self,)

    def content(self) -> dict[str, Any]:
        """Its settings as plain values."""
        simulated = None if self.simulated is None else list(self.simulated)
        return {
            "spacing": self.spacing,
            "thickness": self.thickness,
            "profile": self.profile,
            "simulated": simulated,
            "gap": self.gap,
        }

    def sampling(self, shape: Sequence[int], spacing: Sequence[float], thickness: float | None) -> list[Slices | None]:
        """How a scan (H, W, D) of voxels (mm) lies on the grid of its result; thickness: of its slices, as the file says,
        0 or None where it does not, NaN where what it says is none.

        Isotropic voxels of at least `LARGEST` mm are refined to `USUAL_MM`. Raises BadInput when there is nothing to refine.
        """
        wanted = [self._wanted(mm, spacing) for mm in spacing]
        # Headers are in float32: 4 is to be 4.
        ratios = [round(mm / fine, 5) for mm, fine in zip(spacing, wanted, strict=True)]
        size = " x ".join(f"{mm:.3g}" for mm in spacing)
        if max(ratios) < FACTORS[0]:
            raise BadInput(f"its voxels of {size} mm are fine already: --spacing {min(spacing) / 2:.2g} asks for finer ones")
        if max(ratios) > FACTORS[1] * (1 + 1e-6):
            finest = max(spacing) / FACTORS[1]
            fact = f"its voxels of {size} mm would be cut into {max(ratios):.3g}"
            if finest > min(spacing):
                raise BadInput(f"{fact}, {FACTORS[1]:g} at most are possible: leave --spacing out, for {ISOTROPIC} is")
            raise BadInput(f"{fact}; --spacing {math.ceil(100 * finest) / 100:g} is the finest")
        if min(ratios) < 1 / FACTORS[0]:
            fact = f"its voxels of {size} mm are partly finer than {max(wanted):.3g} mm"
            own = f"--spacing {min(spacing):.3g} loses nothing, nor does " if max(spacing) <= FACTORS[1] * min(spacing) else ""
            raise BadInput(f"{fact}; {own}{ISOTROPIC}{'' if own else ' loses nothing'}")
        through = thickest(ratios)
        thick = [credible(self.thickness or thickness, mm) if axis == through else None for axis, mm in enumerate(spacing)]
        return [
            Slices.covering(side, ratio, None if mm is None else mm / fine, self.profile) if ratio >= FACTORS[0] else None
            for side, ratio, mm, fine in zip(shape, ratios, thick, wanted, strict=True)
        ]

    def doubts(self, axes: Sequence[Slices | None], spacing: Sequence[float], thickness: float | None) -> list[str]:
        """What had to be assumed of a scan's slices, or is odd about them; axes: as `sampling` has them of the same."""
        ratios = [1.0 if axis is None else axis.spacing for axis in axes]
        through, told = thickest(ratios), self.thickness or thickness
        if through is None or (axis := axes[through]) is None:
            return ["is coarse along several axes alike, so that --thickness says nothing of them"] if self.thickness else []
        lines, mm, better = [], spacing[through], "--thickness MM tells better"
        if thickness and (given := credible(self.thickness, mm)) and abs(thickness - given) > SAME * given:
            lines.append(f"was taken as {given:.3g} mm thick, as --thickness says; its file says {thickness:.3g} mm")
        if not told:
            lines.append(f"does not say how thick its slices are: taken as {mm:.3g} mm without gaps; {better}")
        elif math.isnan(told):
            lines.append(f"has a JSON beside it of which no thickness of slices can be read: taken as {mm:.3g} mm; {better}")
        elif credible(told, mm) is None:
            lines.append(
                f"has slices of {told:.3g} mm every {mm:.3g} mm, which cannot be: taken as {mm:.3g} mm thick; {better}"
            )
        elif told < SPARSE * mm:
            lines.append(f"has slices of {told:.3g} mm every {mm:.3g} mm: {1 - told / mm:.0%} of it was not measured; {better}")
        elif told > DENSE * mm:
            lines.append(f"has slices of {told:.3g} mm every {mm:.3g} mm, which overlap; {better}")
        if (rest := axis.rest()) > REST:
            lines.append(f"has slices that overlap so much that its result may miss {rest:.0%} of what a slice measured")
        return lines

    def _wanted(self, mm: float, spacing: Sequence[float]) -> float:
        if self.spacing != ISOTROPIC:
            return float(self.spacing)
        finest = min(spacing)
        if max(spacing) > COARSER * finest:
            return max(finest, mm / FINEST_SHARE) if mm > COARSER * finest else mm
        return USUAL_MM if finest >= LARGEST else mm

    def on(self, shape: Sequence[int]) -> SliceProfile:
        """The simulated operator of fine volumes (H, W, D). A slice whose centre lies beyond the end was not taken."""
        if self.simulated is None:
            raise BadInput("what is simulated is not said; give --set simulated=[1,1,5] or other spacings in voxels")
        return self._profile([self._simulated(side, mm) for side, mm in zip(shape, self.simulated, strict=True)])

    def _simulated(self, side: int, spacing: float) -> Slices | None:
        taken = Slices.covering(max(math.ceil(side / spacing - 0.5), 1), spacing, spacing * (1 - self.gap), self.profile)
        return None if spacing < FACTORS[0] else taken._replace(voxels=side)

    def of(self, volume: Any) -> SliceProfile:
        """The operator of a volume or batch (..., H, W, D) whose meta says how it was sampled."""
        said = volume.meta[SLICES] if hasattr(volume, "meta") and SLICES in volume.meta else None
        if said is None:
            raise BadInput("nothing says how the volume was sampled; read it with LoadVolumesd, as inference.yaml does")
        said = json.loads(said if isinstance(said, str) else said[0])
        axes = [None if axis is None else Slices(*axis) for axis in said]
        return self._profile(axes).on(volume.shape[-3:])

    def _profile(self, axes: Sequence[Slices | None]) -> SliceProfile:
        from .slice_profile import SliceProfile  # here: who only tells what was done needs no PyTorch

        return SliceProfile(axes, self.smooth, self.consistency)


def meta_of(axes: Sequence[Slices | None]) -> dict[str, str]:
    """What `AsScanned.of` reads, as a string, which survives the collation of a batch."""
    return {SLICES: json.dumps([None if axis is None else list(axis) for axis in axes])}
