# SPDX-License-Identifier: Apache-2.0
"""What a task asks of a case, judged by grids alone; the loader and the doctor both ask here. Imports no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import yaml

from ..bundle import bundle_root
from ..errors import BadInput
from ..limits import limits_of
from ..measurement.as_scanned import AsScanned
from .doubts import GRID_TOLERANCE_MM, by, distance_mm
from .layouts import modality_of

orientations: Any = nib.orientations  # has no types

THICKER = 1.5  # times the other spacings, from which on the largest is that of thick slices
FINEST, USUAL = 0.45, 0.2  # shares of the trained voxel: a finer result is refused, one further off is doubted
LARGEST_SIDE = 640  # voxels of a fine grid; more would ask for terabytes
FRAME_AXES, LARGEST_FRAME = 2, 1600  # where two axes alone are refined, as those of a video's frames
FACTOR, SUPER_RESOLUTION, THICK_SLICE = 4, "super_resolution", "super_resolution_thick_slice"  # what ships, for T1w
ANY = "any"  # contrast and thickness
SLICES = ("sagittal", "coronal", "axial")  # by the RAS axis that they are thick along
ALONG = ("right-left", "back-front", "feet-head")
GRIDS = "docs/your_data.md#grids"
WHICH_TASK = "docs/your_data.md#which-task"


class Grid(NamedTuple):
    """Voxels in space: affine (4, 4) to mm in RAS, and shape (H, W, D)."""

    affine: npt.NDArray[np.floating]
    shape: tuple[int, ...]

    @property
    def spacing(self) -> list[float]:
        """Voxel sizes in mm."""
        return [float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0)]

    def in_ras(self) -> Grid:
        """The same voxels stored right, anterior, superior."""
        turn = orientations.io_orientation(self.affine)
        shape = tuple(self.shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
        return Grid(self.affine @ orientations.inv_ornt_aff(turn, self.shape), shape)

    def refined(self, factors: Sequence[float]) -> Grid:
        """Each voxel cut into `factors` of any real number, from the first edge on; the last one may reach over the end."""
        step = 1 / np.array(factors, dtype=np.float64)
        coarse_from_fine = np.diag([*step, 1.0])
        coarse_from_fine[:3, 3] = (step - 1) / 2
        return Grid(
            self.affine @ coarse_from_fine, tuple(math.ceil(s * f - 1e-6) for s, f in zip(self.shape, factors, strict=True))
        )

    def apart(self, other: Grid) -> float:
        """Largest distance in mm of corner voxels, infinite for another number of voxels."""
        if tuple(self.shape) != tuple(other.shape):
            return float("inf")
        return distance_mm(self.affine, other.affine, self.shape)


class Expectation(NamedTuple):
    """What a run takes its files for.

    blocks: voxels averaged along (H, W, D), of each scan of the target; none where nothing is measured, or in simulation.
    trained_mm: voxel size of the volumes that the weights saw, 0 for any; pixel_mm: of axial slices that are brought onto it, 0
    for no such weights. resample: whether other grids are put right.
    weights: those that ship for the task, in models/; caveat: of those (`Limits`); refusing: whether what is unlike all that
    they saw is refused. scanned: how slices follow from the header instead, where they are not laid out yet; specialists: tasks
    whose weights may answer instead; loops: whether volumes are loops (x, y, t), for which a source is one cine.
    """

    blocks: Sequence[Sequence[int]] = ()
    trained_mm: float = 0.0
    pixel_mm: float = 0.0
    resample: bool = False
    weights: str = ""
    caveat: str = ""
    refusing: bool = False
    scanned: AsScanned | None = None
    specialists: Sequence[str] = ()
    loops: bool = False


class Plan(NamedTuple):
    """How a case comes onto one grid.

    order: the RAS axes in the order in which the task has them; grid: the fine one, in RAS. displaced: sources on other grids.
    """

    order: tuple[int, int, int]
    grid: Grid
    displaced: list[str]
    doubts: list[str]


def plan(case: str, sources: Sequence[tuple[str, Grid]], expected: Expectation) -> Plan:
    """Scans of the target first, each by its name and RAS grid. Raises BadInput when they cannot be what the task expects."""
    blocks = [tuple(block) for block in expected.blocks]
    if len(sources) < len(blocks):
        raise BadInput(f"case {case}: {len(blocks)} scans are needed; name them all in --conditions")
    name, first = sources[0]
    if expected.pixel_mm:
        check_axial(name, first.spacing)
    order, doubts = (0, 1, 2), list[str]()
    if len(blocks) == 1 and (across := _thick(blocks[0])) is not None:
        order, doubts = _axes(name, first, across, expected.trained_mm)
        blocks = [tuple(blocks[0][axis] for axis in order)]  # two axes changed places, which is its own inverse
    elif len(blocks) > 1:
        _check_planes(sources, blocks)
    grids = [grid.refined(block) for (_, grid), block in zip(sources, blocks, strict=False)]
    if expected.scanned is not None:
        grids = [first.refined(ratios_of(name, first, expected.scanned))]
    grid = grids[0] if grids else first
    if blocks:
        _check_sizes(name, first, grid, expected.trained_mm)
    doubts.extend(_unusual(first, grid, expected.trained_mm))
    displaced = []
    for number, (other, own) in enumerate(sources[1:], start=1):
        lies_on = grids[number] if number < len(grids) else own
        if grid.apart(lies_on) <= GRID_TOLERANCE_MM:
            continue
        if not expected.resample or number < len(grids):
            raise BadInput(f"case {case}: {_difference((name, first), grid, (other, lies_on), scan=number < len(grids))}")
        displaced.append(other)
    return Plan(order, grid, displaced, doubts)


def ratios_of(name: str, grid: Grid, scanned: AsScanned) -> list[float]:
    """Into how many voxels those of a scan are cut along each axis. Raises BadInput, with its name, where into one."""
    try:
        axes = scanned.sampling(grid.shape, grid.spacing, 0.0)
    except BadInput as error:
        raise BadInput(f"{Path(name).name}: {error}") from error
    return [1.0 if axis is None else axis.spacing for axis in axes]


def thick_axis(spacing: Sequence[float]) -> int | None:
    """The axis whose voxels are clearly the longest, if there is one."""
    *_, second, largest = sorted(spacing)
    return list(spacing).index(largest) if largest > (THICKER - 1e-3) * second else None


def check_axial(name: str, spacing: Sequence[float]) -> None:
    """Raise BadInput for slices (voxels in mm along right, anterior, superior) that are thick along another axis."""
    if (thick := thick_axis(spacing)) not in (None, SLICES.index("axial")):
        fact = f"its slices are {SLICES[thick]}, of {_mm(spacing)}, and the weights saw axial ones"
        raise BadInput(f"{Path(name).name}: {fact}; make its voxels isotropic first (--task {ANY})")


def fitting_task(spacing: Sequence[float], trained_mm: float = 0.0) -> str:
    """The shipped task that suits voxels of this size (mm) and what it makes of them, or why none does."""
    fine, finest = [mm / FACTOR for mm in spacing], FINEST * (trained_mm or 1.0)
    thick = thick_axis(spacing)
    if thick is not None and fine[thick] >= finest:
        made = [fine[axis] if axis == thick else mm for axis, mm in enumerate(spacing)]
        fact = f"its slices are thick: --task {THICK_SLICE}, for T1w, makes {_mm(made)} of them"
        return f"{fact}, --task {ANY} is for any contrast ({WHICH_TASK})"
    if min(fine) >= finest:
        return f"--task {SUPER_RESOLUTION}, for T1w, makes {_mm(fine)} of them ({WHICH_TASK})"
    if max(fine) < finest:
        return f"it is fine already: the weights are for voxels or slices of about 4 mm ({WHICH_TASK})"
    return f"--task {ANY} takes such voxels ({WHICH_TASK})"


def default_task(weights: Any = None) -> str:
    """Any, but for weights of one's own that for which `train` trains by default."""
    return ANY if weights is None else SUPER_RESOLUTION


def asked_of(words: Sequence[str], contrast: str | None = None, **slices: Any) -> tuple[list[str], Expectation]:
    """Conditions and expectation of the task that one word names, configs/task_WORD.yaml or a file; of several, or of one that
    names none, they are the conditions, and nothing is restored.

    contrast: in place of the one of the task; slices: spacing and thickness, in place of the task's, None for these.
    Raises BadInput for a contrast where one is made of others, and for what `AsScanned` refuses or the task has not.
    """
    configs = Path(bundle_root(), "configs")
    named = [path for path in (configs / f"task_{words[0]}.yaml", Path(words[0]).expanduser()) if path.suffix == ".yaml"]
    file = next((path for path in named if path.is_file()), None)
    given = {key: value for key, value in slices.items() if value is not None}
    if len(words) != 1 or file is None:
        if (unused := next(iter(given), None)) or contrast:
            raise BadInput(f"--{unused or 'contrast'}: is of a task; {' and '.join(words)} is none")
        return list(words), Expectation()
    config: dict[str, Any] = {}
    for path in (configs / "inference.yaml", file):
        config |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if contrast is not None:
        config["conditions"] = [_contrast(contrast, words[0], config["conditions"], config["target"])]
    for key, value in given.items():
        if key not in config:
            raise BadInput(f"--{key} {value}: task {words[0]} has none; --task {ANY} takes it")
        config[key] = value
    measured = config["degradation"]
    blocks = [] if measured is None else measured.get("blocks", [config["block"]])
    coarse, weights = [block for block in blocks if max(block) > 1], Path(bundle_root(), "models", f"{config['model_name']}.pt")
    scanned = AsScanned(config["spacing"], config["thickness"]) if "spacing" in config else None
    expected = Expectation(
        coarse, float(config["trained_mm"]), float(config["pixel_mm"]), weights=str(weights), caveat=limits_of(weights).caveat,
        refusing=measured is None, scanned=scanned, specialists=tuple(config["specialists"] or ()),
        loops=config["axes"][-1] == "t",
    )  # fmt: skip
    return list(config["conditions"]), expected


def _contrast(wanted: str, task: str, conditions: Sequence[str], target: str) -> str:
    """Our word for a contrast. Raises BadInput where the task's weights make one of another."""
    if list(conditions) != [target]:
        raise BadInput(f"--contrast {wanted}: task {task} makes {target} of {' and '.join(conditions)}; leave it out")
    return modality_of(wanted)  # T1w is t1 for the interval and the results' headers, too


def _thick(block: Sequence[int]) -> int | None:
    """The only axis along which a block averages."""
    axes = [axis for axis, factor in enumerate(block) if factor > 1]
    return axes[0] if len(axes) == 1 else None


def _axes(name: str, grid: Grid, across: int, trained_mm: float) -> tuple[tuple[int, int, int], list[str]]:
    """The order of the RAS axes that brings the thick one of a scan to where the task has its own, and what to say of it."""
    thick = _thick_axis_of(name, grid, trained_mm)
    if thick == across:
        return (0, 1, 2), []
    order = [0, 1, 2]
    order[across], order[thick] = thick, across
    doubt = f"{Path(name).name} has {SLICES[thick]} slices, refined {ALONG[thick]}; the weights saw {SLICES[across]} ones"
    return (order[0], order[1], order[2]), [doubt]


def _thick_axis_of(name: str, grid: Grid, trained_mm: float) -> int:
    if (thick := thick_axis(grid.spacing)) is None:
        fact = f"its voxels of {_mm(grid.spacing)} are no thick slices"
        raise BadInput(f"{name}: {fact}; {fitting_task(grid.spacing, trained_mm)}")
    return thick


def _check_planes(sources: Sequence[tuple[str, Grid]], blocks: Sequence[Sequence[int]]) -> None:
    """Raise BadInput when a scan is thick along another axis than its block; their order is the user's."""
    for (name, grid), block in zip(sources, blocks, strict=False):
        across = _thick(block)
        if across is not None and across != (thick := _thick_axis_of(name, grid, 0.0)):
            wanted = ", ".join(SLICES[axis] for one in blocks if (axis := _thick(one)) is not None)
            fact = f"its slices are {SLICES[thick]}, not {SLICES[across]}"
            raise BadInput(f"{name}: {fact}; name the scans in the order {wanted}")


def _check_sizes(name: str, coarse: Grid, fine: Grid, trained_mm: float) -> None:
    refined = [made for had, made in zip(coarse.spacing, fine.spacing, strict=True) if made < had * 0.99]
    if refined and min(refined) < FINEST * trained_mm:
        fact = f"its voxels of {_mm(coarse.spacing)} would become {_mm(fine.spacing)}"
        raise BadInput(f"{name}: {fact}; {fitting_task(coarse.spacing, trained_mm)}")
    if max(fine.shape) > (largest := LARGEST_FRAME if len(refined) == FRAME_AXES else LARGEST_SIDE):
        fact = f"its {by(coarse.shape)} voxels would become {by(fine.shape)}, but {largest} a side are the most"
        raise BadInput(f"{name}: {fact}; crop it, or give larger voxels or a smaller --block")


def _unusual(coarse: Grid, fine: Grid, trained_mm: float) -> list[str]:
    """What comes out, where it is not of the size that the weights saw."""
    if not trained_mm or all(abs(mm / trained_mm - 1) <= USUAL for mm in fine.spacing):
        return []
    become = "" if coarse.shape == fine.shape else f" come out as {_mm(fine.spacing)}"
    return [f"voxels of {_mm(coarse.spacing)}{become}; the weights saw {trained_mm:g} mm"]


def _difference(first: tuple[str, Grid], fine: Grid, second: tuple[str, Grid], *, scan: bool) -> str:
    """How two grids differ, and the way out."""
    name, other = (Path(source).name for source, _ in (first, second))
    remedy = f"add --resample, or --register where the head moved ({GRIDS})"
    if scan:
        remedy = f"scans of one measurement must cover the same field ({GRIDS})"
    if fine.shape != second[1].shape:
        refined = "" if first[1].shape == fine.shape else f" and so {by(fine.shape)} on the fine grid"
        return f"{name} is {by(first[1].shape)}{refined} but {other} is {by(second[1].shape)}; {remedy}"
    return f"{name} and {other} lie up to {fine.apart(second[1]):.3g} mm apart in space; {remedy}"


def _mm(spacing: Sequence[float]) -> str:
    return f"{' x '.join(f'{mm:.3g}' for mm in spacing)} mm"
