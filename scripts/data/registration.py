# SPDX-License-Identifier: Apache-2.0
"""Volumes on other grids brought onto that of the first condition: by their affines, or rigidly moved as well."""

from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK
import torch
from monai.data.meta_tensor import MetaTensor

from ..errors import BadInput
from ..measurement.intensity import background
from .doubts import GRID_TOLERANCE_MM
from .meta_tensors import grid_of, make_volume

sitk: Any = SimpleITK  # has no types
Image: TypeAlias = Any
Transform: TypeAlias = Any
Method: TypeAlias = Any

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # as ITK counts, from RAS and back
LEVELS_MM = (8.0, 4.0, 2.0)  # voxels of the steps from coarse to fine
SAMPLES = 80_000  # voxels that the metric looks at, of every step
BINS = 32
LEAST_OVERLAP = 0.05  # of the first volume's field
FURTHEST_MM, FURTHEST_DEGREES = 80.0, 60.0  # within one session, and between two; more is a failure
COVERED = 0.995  # of the field: less is worth a word
IN_PLACE = 0.1  # mm and degrees; resampling would blur more than it moves


class Motion(NamedTuple):
    """A rigid transform from the fixed to the moving volume, in LPS about the centre of the fixed one, and its size.

    before, after: mutual information in nats.
    """

    transform: Transform
    mm: float
    degrees: float
    before: float
    after: float


class Alignment:
    """Brings volumes onto the grid of `reference` (C, H, W, D), of which the first channel counts, and keeps a line for each.

    Images are interpolated linearly, label maps take the nearest voxel; around lies the volume's own background. register:
    images are first moved rigidly; a label map moves with the image on whose grid it was drawn.
    """

    def __init__(self, reference: MetaTensor, *, register: bool) -> None:
        self.reference, self.register = reference, register
        self.lines: list[str] = []
        self._moved: list[tuple[MetaTensor, Transform]] = []

    def __call__(self, volume: MetaTensor, *, mask: bool = False) -> MetaTensor:
        """One volume (1, H, W, D). Raises BadInput when the two do not overlap or no motion is found."""
        name, first = (Path(v.meta["filename_or_obj"]).name for v in (volume, self.reference))
        same = _same_grid(volume, self.reference)
        transform, line = sitk.Transform(), f"{name} was resampled onto the grid of {first}"
        if self.register and mask:
            moved = [] if same else [known for image, known in self._moved if _same_grid(image, volume)]
            same, transform = same and not moved, next(iter(moved), transform)
        elif self.register:
            motion = rigid_motion(self.reference, volume)
            line = f"{name} was moved {motion.mm:.2f} mm and {motion.degrees:.2f} degrees onto {first} (mutual information "
            line += f"{motion.before:.3g} before, {motion.after:.3g} after)"
            same = same and max(motion.mm, motion.degrees) < IN_PLACE
            transform = transform if same else motion.transform
            self._moved.append((volume, transform))
        result, covered = (volume, 1.0) if same else resampled(volume, self.reference, transform, nearest=mask)
        if not covered:
            raise BadInput(f"{name} and {first} do not overlap in space; their headers place them apart, so leave one out")
        if not same or (self.register and not mask):
            self.lines.append(line if covered > COVERED else f"{line}; it covers {covered:.0%} of the field")
        return result


def _same_grid(one: MetaTensor, other: MetaTensor) -> bool:
    return grid_of(one).apart(grid_of(other)) <= GRID_TOLERANCE_MM


def unmoved() -> Transform:
    """The transform of volumes that lie where their headers say."""
    return sitk.Transform()


def resampled(volume: MetaTensor, onto: MetaTensor, transform: Transform, *, nearest: bool) -> tuple[MetaTensor, float]:
    """(1, H, W, D) on another grid, and the share of that grid that it covers."""
    around = float(background(volume.as_tensor()[None])[0, 0]) if not nearest else 0.0
    how = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    image, grid = _image(volume), _image(onto)
    covered = sitk.Resample(_ones(image), grid, transform, sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    voxels = _array(sitk.Resample(image, grid, transform, how, around, sitk.sitkFloat32))
    meta = {**volume.meta, "grid_shape": list(onto.shape[1:]), "axcodes": onto.meta.get("axcodes", "RAS")}
    return make_volume(torch.from_numpy(voxels)[None], onto.affine, meta), float(_array(covered).mean())


def rigid_motion(fixed: MetaTensor, moving: MetaTensor) -> Motion:
    """The motion that makes two volumes (1, H, W, D) tell most of each other: Mattes' mutual information over their common
    field, from coarse to fine, from where the headers place them or from aligned centres, whichever tells more.

    The same every time. Raises BadInput when they do not overlap or end up implausibly far apart.
    """
    images = [_clipped(_image(volume)) for volume in (fixed, moving)]
    centre = _centre(images[0])
    headers, centres = sitk.Euler3DTransform(), sitk.Euler3DTransform()
    headers.SetCenter(centre), centres.SetCenter(centre)
    centres.SetTranslation([there - here for here, there in zip(centre, _centre(images[1]), strict=True)])
    pairs = [(_smoothed(images[0], mm), _smoothed(images[1], mm)) for mm in LEVELS_MM]
    transform = max((headers, centres), key=lambda start: _information(*pairs[0], start) or 0.0)
    for mm, pair in zip(LEVELS_MM, pairs, strict=True):
        transform = _improved(*pair, transform, step_mm=mm / 4)
    before, after = _information(*pairs[-1], headers), _information(*pairs[-1], transform)
    if before is not None and (after is None or after < before):  # of small or even volumes it may lose its way
        transform, after = headers, before
    turn = np.reshape(transform.GetMatrix(), (3, 3))
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    mm = float(np.linalg.norm(transform.GetTranslation()))
    names = " and ".join(Path(v.meta["filename_or_obj"]).name for v in (fixed, moving))
    if after is None:
        raise BadInput(f"{names} do not overlap in space; register them yourself")
    if mm > FURTHEST_MM or degrees > FURTHEST_DEGREES:
        raise BadInput(f"{names} cannot be registered: {mm:.0f} mm and {degrees:.0f} degrees apart; register them yourself")
    return Motion(transform, mm, degrees, 0.0 if before is None else before, after)


def _improved(fixed: Image, moving: Image, start: Transform, *, step_mm: float) -> Transform:
    method = _method(fixed, moving, start)
    if method is None:
        return start
    # Patient: with 1e-3 mm, 200 steps and a relaxation of 0.6 some rotations ended two degrees off.
    method.SetOptimizerAsRegularStepGradientDescent(step_mm, 1e-4, 500, relaxationFactor=0.7, gradientMagnitudeTolerance=1e-5)
    method.SetOptimizerScalesFromPhysicalShift()
    found = sitk.Euler3DTransform(start)
    method.SetInitialTransform(found, inPlace=True)
    method.Execute(fixed, moving)
    return found


def _information(fixed: Image, moving: Image, transform: Transform) -> float | None:
    """Mutual information in nats, None where the two hardly overlap."""
    method = _method(fixed, moving, transform)
    if method is None:
        return None
    method.SetInitialTransform(sitk.Euler3DTransform(transform), inPlace=True)
    return -float(method.MetricEvaluate(fixed, moving))


def _method(fixed: Image, moving: Image, transform: Transform) -> Method:
    """The metric over the common field of two images, sampled alike every time; None where there is hardly any."""
    common = sitk.Resample(_ones(moving), fixed, transform, sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    voxels = int(_array(common).sum())
    if voxels < LEAST_OVERLAP * common.GetNumberOfPixels():
        return None
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(1)  # else sums follow the order in which threads end
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(common)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / common.GetNumberOfPixels()), 1)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _image(volume: MetaTensor) -> Image:
    """The first channel in ITK's terms."""
    affine = LPS @ np.asarray(volume.affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.as_tensor()[0].numpy().transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def _array(image: Image) -> npt.NDArray[Any]:
    """(H, W, D)"""
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))


def _ones(image: Image) -> Image:
    ones = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    ones.CopyInformation(image)
    return ones


def _centre(image: Image) -> tuple[float, ...]:
    middle: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in image.GetSize()])
    return middle


def _clipped(image: Image) -> Image:
    """Without the few bright voxels that would leave few bins to all others."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), (0.1, 99.8))
    return sitk.Clamp(image, sitk.sitkFloat32, float(low), float(max(high, low + 1e-6)))


def _smoothed(image: Image, mm: float) -> Image:
    """On cubic voxels of about this size, whose centres cover the same field, after smoothing."""
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    sides = np.maximum(np.round(size * spacing / mm), np.minimum(size, 4)).astype(int)
    own = size * spacing / sides
    for axis, (has, wanted) in enumerate(zip(spacing, own, strict=True)):
        if wanted > has * 1.01:  # a coarse axis is smooth already
            image = sitk.RecursiveGaussian(image, sigma=float(wanted) / 2, direction=axis)
    first = image.TransformContinuousIndexToPhysicalPoint(((own / spacing - 1) / 2).tolist())
    grid = sides.tolist(), sitk.Transform(), sitk.sitkLinear, first, own.tolist(), image.GetDirection()
    return sitk.Resample(image, *grid, 0.0, sitk.sitkFloat32)
