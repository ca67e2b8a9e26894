# SPDX-License-Identifier: Apache-2.0
"""Volumes of random contrasts: what one model for any contrast learns from."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..measurement.intensity import bright_end

OWN, LESION, NOISE = 0.4, 0.15, 0.25  # shares of draws that keep their contrast, get a lesion, are measured with noise
RISING, FALLING = 0.5, 0.3  # shares of new contrasts that keep the order of tissues, or turn it round
LOUDEST = 0.015  # standard deviation of noise, of the bright end


def painted(labels: Tensor, rng: np.random.Generator) -> Tensor:
    """A label map (h, w, d) with random intensities and texture of every tissue, smooth as a scanner's voxels are."""
    values, index = labels.unique(return_inverse=True)
    mean = torch.from_numpy(rng.uniform(0, 1, len(values))).float()
    spread = torch.from_numpy(rng.uniform(0, 0.06, len(values))).float()
    mean[values == 0], spread[values == 0] = 0.0, 0.0
    texture = smooth(_normal(labels.shape, rng), float(rng.uniform(0.3, 1.5)))
    return smooth((mean[index] + spread[index] * texture / texture.std()).clamp(min=0), float(rng.uniform(0.4, 0.9)))


def recoloured(volume: Tensor, rng: np.random.Generator) -> Tensor:
    """A volume (h, w, d) in [0, 1] by a random map of intensities, perhaps not monotone; zero, where nothing is, stays."""
    if rng.random() < OWN:
        return volume.clamp(min=0) ** float(np.exp(rng.uniform(-0.4, 0.4)))
    # Few knots far apart: a steep map makes texture of noise, which nobody can restore.
    knots, kind = int(rng.integers(2, 5)), rng.random()
    place = (np.arange(1, knots + 1) + rng.uniform(-0.3, 0.3, knots)) / (knots + 0.5)
    value = rng.uniform(0.05, 1, knots)
    if kind < RISING + FALLING:
        value = np.sort(value)[:: 1 if kind < RISING else -1]
    place, value = np.concatenate([[0], place, [1.2]]), np.concatenate([[0], value, value[-1:]])
    return torch.from_numpy(np.interp(volume.numpy(), place, value).astype(np.float32))


def varied(volume: Tensor, rng: np.random.Generator) -> Tensor:
    """A volume (h, w, d) with a lesion in some, under a smooth bias field, scaled so that its bright end is 1."""
    if rng.random() < LESION:
        volume = _with_lesion(volume, rng)
    return bright(volume * bias_field(volume.shape, 0.15, rng))


def bias_field(shape: Sequence[int], most: float, rng: np.random.Generator) -> Tensor:
    """Smooth factors of two or three axes, whose logarithms have a standard deviation of up to `most`."""
    coarse = torch.from_numpy(rng.normal(0, rng.uniform(0, most), (1, 1, *(3,) * len(shape)))).float()
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    return F.interpolate(coarse, size=tuple(shape), mode=mode, align_corners=True)[0, 0].exp()


def bright(volume: Tensor) -> Tensor:
    """A volume (h, w, d) above 0, scaled so that its bright end is 1."""
    return volume / float(bright_end(volume[None, None], torch.zeros(1, 1)).clamp(min=1e-6))


def with_noise(measurement: Tensor, rng: np.random.Generator) -> Tensor:
    """A measurement with Rician noise, in some."""
    if rng.random() > NOISE:
        return measurement
    level = float(rng.uniform(0, LOUDEST))
    real, imaginary = (level * _normal(measurement.shape, rng) for _ in range(2))
    return ((measurement + real) ** 2 + imaginary**2).sqrt()


def smooth(volume: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing, sigma in voxels; edges repeat."""
    return torch.from_numpy(gaussian_filter(volume.numpy(), sigma, mode="nearest", truncate=3.0))


def _with_lesion(volume: Tensor, rng: np.random.Generator) -> Tensor:
    """An ellipsoid with a soft edge that brightens or darkens what is there."""
    squares = torch.zeros(())
    for axis, side in enumerate(volume.shape):
        line = (torch.arange(side) - float(rng.uniform(0, side))) / float(rng.uniform(3, 14))
        squares = squares + line.view([-1 if axis == other else 1 for other in range(3)]) ** 2
    inside = torch.sigmoid((1 - squares.sqrt()) * float(rng.uniform(3, 12)))
    return volume + inside * (volume > 0) * float(rng.uniform(-0.6, 0.8)) * float(volume.max())


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
