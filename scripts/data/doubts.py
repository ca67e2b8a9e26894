# SPDX-License-Identifier: Apache-2.0
"""Where sources are doubted: lines for what can be used but may be wrong, `BadInput` for what would give a wrong result."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from ..errors import BadInput, listed

Affine = npt.NDArray[np.floating]
Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

GRID_TOLERANCE_MM = 0.01  # between corner voxels of one grid: scanners and converters round positions to two decimals
FORMS_APART = 0.5  # of the smallest voxel side; the quaternions of a qform in float32 lose up to 0.1 mm at a head's edge
SHEAR = 2e-3  # cosine between two axes: 0.1 degrees; headers in float32 or with four decimals stay below it
SIZES_APART = 0.01  # of a voxel side
VOXEL_MM = (0.01, 50.0)  # of a side: what lies outside is in other units than it says
MOST_VOXELS = 2**29  # 813 a side; 2 GB in float32, before anything is computed
DEFLATE_RATIO = 1032  # the most that DEFLATE can gain (RFC 1951): a match of 258 bytes in 2 bits
LARGE, LARGE_RATIO = 5e8, 100  # bytes; no scan of this size gains more, and label maps of it are rare
AROUND, FEW = 0.5, 0.1  # shares of the six faces: of what lies around a head, and of a value far from tissue
DARKER, SLIGHT = 0.01, 0.05  # share of voxels that are outliers at either end; share of the bright end negative by accident
FAR, ABOVE = 2.0, 0.5  # ranges of tissue: below, where there is no natural darkness, and above, where none is saturated
FEW_VALUES = 16  # of a slice or volume, as of a label map
UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI's spatial codes: metre, millimetre, micrometre; 0 does not say
HOLES = "holds NaN or infinite voxels; replace them, for example by the background value"
SIDES_UNKNOWN = "does not say where the head lies: left and right are unknown and may be swapped"


def distance_mm(first: Affine, second: Affine, shape: Sequence[int]) -> float:
    """The farthest, in mm, that two affines (4, 4) place the centre of a corner voxel of a grid (H, W, D) apart."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))]).T
    return float(np.linalg.norm(((first - second) @ corners)[:3], axis=0).max())


def sides(affine: Affine) -> npt.NDArray[np.float64]:
    """Voxel sides in mm, (3,)."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def sheared(affine: Affine) -> bool:
    """Whether the axes are not at right angles, so that no qform can say it."""
    axes = affine[:3, :3] / sides(affine)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR)


def check_size(file: Path, shape: Sequence[int], itemsize: int, *, held: int, packed: bool) -> None:
    """Before anything is allocated: raise BadInput where a header claims more than `held` bytes can give, or too much."""
    claimed = math.prod(map(int, shape)) * itemsize
    ratio = (DEFLATE_RATIO if claimed < LARGE else LARGE_RATIO) if packed else 1
    if claimed > held * ratio:
        fact = f"its header claims {by(shape)} voxels, {_bytes(claimed)}, and its {_bytes(held)} cannot hold them"
        raise BadInput(f"{file}: {fact}; copy or convert it again")
    if math.prod(map(int, shape)) > MOST_VOXELS:
        raise BadInput(f"{file}: is {by(shape)}, above the {MOST_VOXELS:.2g} voxels that are read; crop or resample it first")


def of_affine(file: Path, affine: Affine) -> list[str]:
    """Doubts about an affine (4, 4) in mm, of any format. Raises BadInput unless it places voxels of possible size in space."""
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise BadInput(f"{file}: its affine does not place the voxels in space; repair sform or qform in the header")
    if not all(VOXEL_MM[0] <= side <= VOXEL_MM[1] for side in sides(affine)):
        fact = f"its voxels would be {_mm(sides(affine))}, which no scan of a head is"
        raise BadInput(f"{file}: {fact}; correct the units or the voxel size in its header")
    if not sheared(affine):
        return []
    axes = affine[:3, :3] / sides(affine)
    degrees = math.degrees(math.asin(min(1.0, float(np.abs(axes.T @ axes - np.eye(3)).max()))))
    return [f"its axes are {degrees:.2g} degrees off right angles; planes follow its voxels, and a qform cannot say it"]


def of_nifti(file: Path, header: Any, shape: Sequence[int]) -> tuple[list[str], float, tuple[int, int]]:
    """Doubts about a NIfTI header as it stands on disk, millimetres per unit, and the codes of sform and qform that hold.

    Raises BadInput for voxels without a size, and for forms that are mirror images.
    """
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(pixdim).all() and pixdim.all()):
        fact = f"its pixdim is {' '.join(f'{side:g}' for side in pixdim)}, so its affine does not place the voxels in space"
        raise BadInput(f"{file}: {fact}; repair the header or convert the scan again")
    code = int(header["xyzt_units"]) & 7
    unit = UNITS_MM.get(code, 1.0)
    lines = [] if unit == 1 else [f"its header is in {'metres' if unit > 1 else 'micrometres'}; turned into millimetres"]
    if code not in (0, *UNITS_MM):
        lines.append(f"its unit of length is unknown (code {code}); taken as millimetres")
    if not (sform or qform):
        return [*lines, f"its header (sform_code and qform_code 0) {SIDES_UNKNOWN}"], unit, (0, 0)
    if (pixdim < 0).any() and not sform:
        lines.append(f"its voxel sizes {' '.join(f'{side:g}' for side in pixdim)} should be positive; check left and right")
    header["pixdim"][1:4] = np.abs(pixdim)
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # as the standard has it
    by_sform, by_qform = header.get_sform(), _qform(header)
    if sform and np.isfinite(by_sform).all() and not np.allclose(sides(by_sform), np.abs(pixdim), rtol=SIZES_APART):
        both = f"{_mm(np.abs(pixdim) * unit)} by pixdim and {_mm(sides(by_sform) * unit)} by sform"
        lines.append(f"its voxels are {both}; the sform counts")
    if not (sform and qform):
        return lines, unit, (sform, qform)
    if by_qform is None:
        return [*lines, "its qform is damaged; the sform counts"], unit, (sform, 0)
    if np.linalg.det(by_sform[:3, :3]) * np.linalg.det(by_qform[:3, :3]) < 0:
        fact = "its sform and qform are mirror images, so left and right are unknown"
        raise BadInput(f"{file}: {fact}; set the wrong one's code to 0 or convert the scan again")
    distance = distance_mm(by_sform, by_qform, shape)
    if not distance > FORMS_APART * sides(by_sform).min():
        return lines, unit, (sform, qform)
    fact = f"its sform (code {sform}) and qform (code {qform}) lie up to {distance * unit:.3g} mm apart; the sform counts"
    return [*lines, fact], unit, (sform, 0)


def of_voxels(source: str, voxels: Volume, *, constant: bool = False, loop: bool = False) -> tuple[Volume, list[str]]:
    """A volume (H, W, D) whose background is a number near its tissue, and what is to be told of that.

    loop: whether the last axis is time; then nothing lies around a head, and bright air is part of the film.
    Raises BadInput for voxels without a value that are not around the head, or, unless it may be `constant`, one value only.
    """
    lines = []
    if (outside := np.isnan(voxels)).any():
        if not background_alone(outside):
            raise BadInput(f"{source}: {HOLES}")
        value = min(float(voxels[~outside].min()), 0.0)
        voxels = np.where(outside, np.float32(value), voxels)
        lines.append(f"its background is NaN; taken as {value:g}")
    low, high = float(voxels.min()), float(voxels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadInput(f"{source}: {HOLES}")
    if constant:
        return voxels, lines
    if low == high:
        raise BadInput(f"{source}: every voxel is {low:g}; there is nothing to learn from or translate")
    if loop:
        return voxels, lines
    if count := _few(voxels):
        kinds = "masks, label maps and pictures of few grey levels"
        lines.append(f"holds {count} values alone, as {kinds} do; give the scan that it was made of")
    if (far := far_background(voxels)) is not None:
        common, value = far
        voxels = np.where(_far(voxels, common), np.float32(value), voxels)
        lines.append(f"its background is {common:g}, far from its tissue; taken as {value:g}")
    elif (within := background_within(voxels)) is not None:
        common, dark = within
        remedy = f"set what lies around the head to its darkest, {dark:.3g}, or give the scan before it was normalised"
        lines.append(f"its background is {common:g}, amid the values of its tissue, and is taken for tissue; {remedy}")
    return voxels, lines


def _few(voxels: Volume) -> int:
    """How many values a volume (H, W, D) has, 0 for more than a mask or a map of some labels."""
    if np.unique(voxels[::3, ::3, ::3]).size > FEW_VALUES:  # quickly, as of any scan
        return 0
    count = np.unique(voxels).size
    return count if count <= FEW_VALUES else 0


def of_slices(voxels: Volume, axis: int) -> list[str]:
    """Doubts about the slices of a volume (H, W, D) across `axis`: blank ones between others, and neighbours that are equal.

    Slices of few values, as label maps have them, are no scan's and tell nothing.
    """
    slices = np.moveaxis(voxels, axis, 0)
    blank = [bool((one == one.flat[0]).all()) for one in slices]
    held = np.flatnonzero(np.logical_not(blank)).tolist()
    gaps = [(before, after) for before, after in itertools.pairwise(held) if after > before + 1]
    equal = [at for at, after in itertools.pairwise(held) if after == at + 1 and np.array_equal(slices[at], slices[after])]
    lost = [at for ends in gaps if all(_of_scan(slices[end]) for end in ends) for at in range(ends[0] + 1, ends[1])]
    found = {"are blank between others": lost, "hold the same as the next": [at for at in equal if _of_scan(slices[at])]}
    remedy = "copy or convert the scan again, for its result is wrong there"
    told = {fact: listed([str(at + 1) for at in places]) for fact, places in found.items() if places}
    return [f"has slices that {fact} (slice {places} of {len(slices)}); {remedy}" for fact, places in told.items()]


def _of_scan(plane: npt.NDArray[np.floating]) -> bool:
    return np.unique(plane).size > FEW_VALUES


def far_background(voxels: Volume) -> tuple[float, float] | None:
    """A value around the head that is no darkness, as -1000 or 4095, and what to take it for; None where there is none.

    voxels: (H, W, D). The value is that of many voxels of the faces, and above nearly all others, or negative: a whole number
    where the others are not, or below them by more than their range twice. A normalised scan's darkness is neither, nor is
    tissue that a window cut off at its bright end: it is near the others, and not around them.
    """
    common, share = _common(voxels)
    if common == 0 or share < FEW or (ends := _ends(voxels, common)) is None:
        return None
    low, high = ends
    magnitude = low >= -SLIGHT * high  # no less than zero, but for what resampling leaves
    below = common < 0 and ((magnitude and common.is_integer()) or low - common > FAR * (high - low))
    above = common > high and (_far_above(common, ends) or _mostly_around(voxels == common))
    return (common, min(low, 0.0)) if below or above else None


def _far(voxels: Volume, common: float) -> Mask:
    """Where a value lies that `far_background` found. Next to the range of the tissue some of this may be as bright."""
    outside, ends = voxels == common, _ends(voxels, common)
    return _reaching_faces(outside) if ends and common > ends[1] and not _far_above(common, ends) else outside


def _far_above(common: float, ends: tuple[float, float]) -> bool:
    low, high = ends
    return common - high > ABOVE * (high - low)


def _mostly_around(outside: Mask) -> bool:
    """Whether voxels (H, W, D) are most of the faces and hang together with them, but for few."""
    around = _reaching_faces(outside)
    return bool(_faces(around).mean() > AROUND) and bool(around.sum() >= (1 - FEW) * outside.sum())


def background_within(voxels: Volume) -> tuple[float, float] | None:
    """The value around a head that is amid those of its tissue, and the dark end of this; None where there is none.

    voxels: (H, W, D), as of a brain that was normalised alone, with 0 around.
    """
    common, share = _common(voxels)
    if share <= AROUND or (voxels < common).mean() <= DARKER or (ends := _ends(voxels, common)) is None:
        return None
    low, high = ends
    amid = SLIGHT * (high - low) < common - low < (1 - SLIGHT) * (high - low)
    return (common, low) if amid and _faces(_reaching_faces(voxels == common)).mean() > AROUND else None


def background_alone(outside: Mask) -> bool:
    """Whether voxels (H, W, D) are most of the faces and reach them everywhere: around the head, not holes in it."""
    return bool(_faces(outside).mean() > AROUND) and bool((_reaching_faces(outside) == outside).all())


def _reaching_faces(outside: Mask) -> Mask:
    """Those of the voxels (H, W, D) that hang together with some in the six faces."""
    from scipy import ndimage  # takes a moment to import

    regions, _ = ndimage.label(outside)
    at_faces = np.unique(_faces(regions))
    return np.isin(regions, at_faces[at_faces > 0])


def _common(voxels: Volume) -> tuple[float, float]:
    """The value that most voxels of the six faces have, and their share."""
    values, counts = np.unique(faces := _faces(voxels), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / faces.size)


def _ends(voxels: Volume, common: float) -> tuple[float, float] | None:
    """The dark and the bright end of all voxels that are not `common`, but for outliers; None where there are none."""
    others = voxels[voxels != common]
    if not others.size:
        return None
    ranks = [max(int(share * others.size), 1) - 1 for share in (DARKER, 1 - DARKER)]
    low, high = np.partition(others, ranks)[ranks]
    return float(low), float(high)


def _faces(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Voxels of the six faces of (H, W, D)."""
    return np.concatenate([np.moveaxis(voxels, axis, 0)[[0, -1]].ravel() for axis in range(3)])


def _qform(header: Any) -> Affine | None:
    try:
        return np.asarray(header.get_qform())
    except (ValueError, HeaderDataError):  # quaternions that are none
        return None


def by(shape: Sequence[int]) -> str:
    """As 240x240x155."""
    return "x".join(str(side) for side in shape)


def _mm(lengths: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return f"{'x'.join(f'{side:.3g}' for side in lengths)} mm"


def _bytes(count: int) -> str:
    unit, name = next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if count >= pair[0]), (1e3, "kB"))
    return f"{count / unit:.1f} {name}"
