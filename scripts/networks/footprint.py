# SPDX-License-Identifier: Apache-2.0
"""How much memory one evaluation of the networks needs: a model that counts the tensors of the finest level."""

from collections.abc import Sequence
from math import prod

from ..measurement.planes import SPACE_TIME
from .presets import UNetSize, size_named
from .score_fusion import ScoreFusion


def predicted_gb(network: ScoreFusion, shape: Sequence[int], slice_batch: int, slabs: int, *, half: bool) -> float:
    """Memory that one evaluation needs beside the weights, in GB: what its largest moment holds at once, if nothing is lost.

    shape: of the inferer's inputs, (B, C, H, W, D); slice_batch: slices that a plane denoises at once; slabs: parts in which
    the 3D network is computed. It counts the tensors of the finest level, where nearly all of the memory
    goes, and grows with the number of voxels.
    """
    batch, conditions, *sides = shape
    item = 2 if half else 4
    volumes = 4 * (4 * (conditions + 5) + 2 * len(network.members) + 8)  # float32: inputs, stacks, sampler's state
    share = min(max(slice_batch, int(network.members[0].group)) / (batch * min(sides)), 1.0)  # type: ignore[arg-type]
    planes = item * _plane_channels(network, share, _loop_channels(network, slabs, sides[0], item))
    fusion = _fusion_bytes(network, slabs, sides[0], item) if network.fused else 0.0
    return batch * prod(sides) * (volumes + max(planes, fusion)) / 1e9


def _plane_channels(network: ScoreFusion, share: float, loop: float) -> float:
    """Channels a voxel of the volume, while planes denoise a share of its slices, or the member of space and time its loop.

    Aligned features are summed: the sum waits beside one member's, of which the finest level is held twice while it is stacked.
    """
    size = size_named(network.size)
    denoising = max(share * _block_channels(size.plane) / size.plane.fold**2, loop)
    features = _feature_channels(network)
    return 2 * features + max(denoising, size.fusion.width / size.fusion.fold**3) if features else denoising


def _loop_channels(network: ScoreFusion, slabs: int, length: int, item: int) -> float:
    """Channels a voxel of the volume, while the member of space and time, if there is one, sees a loop.

    In slabs a skip and a map of the finest level are held, the level below, and of a slab what `_fusion_bytes` says.
    """
    if not any(member.plane == SPACE_TIME for member in network.members):
        return 0.0
    size = size_named(network.size).plane
    if slabs == 1:
        return _block_channels(size) / size.fold**2
    fine, coarse = size.width * size.multipliers[0], size.width * size.multipliers[1]
    return (2 * fine + coarse / 4 + 8 / item * _slab_share(slabs, size.fold, length) * (fine + coarse)) / size.fold**2


def _feature_channels(network: ScoreFusion) -> float:
    """Channels a voxel of one member's aligned features, all levels together."""
    size = size_named(network.size).fusion
    channels = sum(size.width * multiplier / 8**level for level, multiplier in enumerate(size.multipliers))
    aligned = any(len(member.alignments) > 0 for member in network.members)  # type: ignore[arg-type]
    return channels / size.fold**3 if aligned else 0.0


def _fusion_bytes(network: ScoreFusion, slabs: int, length: int, item: int) -> float:
    """Bytes a voxel of the volume, in the first block of the 3D network's finest decoder level.

    In slabs the skips but the first, the level below and the result are held; and of a slab and its neighbours the joined
    input and its norm.
    """
    size = size_named(network.size).fusion
    if slabs == 1:
        return item * (_block_channels(size) / size.fold**3 + _feature_channels(network))
    fine, coarse = size.width * size.multipliers[0], size.width * size.multipliers[1]
    temporary = 8 * _slab_share(slabs, size.fold, length) * (fine + coarse)
    return (item * ((size.blocks + 1) * fine + coarse / 8) + temporary) / size.fold**3


def _slab_share(slabs: int, fold: int, length: int) -> float:
    """Of a volume: a slab and the neighbours that its convolution reads."""
    return 1 / slabs + 2 * fold / length


def _block_channels(size: UNetSize) -> int:
    """Channels of the finest level that are held at once, in the first block of the last decoder level.

    The block holds its input (the level below, brought up, and one skip), its norm and its activation; the other skips wait.
    """
    fine, coarse = size.width * size.multipliers[0], size.width * size.multipliers[1]
    return size.blocks * fine + 3 * (fine + coarse)
