# SPDX-License-Identifier: Apache-2.0
"""What frozen planes say of whole training volumes at gamma = 0: computed once, kept on disk, recalled at every draw."""

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.cache import kept
from ..data.patches import PatchDataset, VolumePatch
from ..inferers.precision import autocast, has_bfloat16
from ..networks.score_fusion import Alignment, Member, Said, ScoreFusion

logger = logging.getLogger(__name__)
PERIOD = 9.0  # seconds between lines, of a volume or more
PLANE_CODE = [
    Path(__file__).parents[1] / "networks" / f"{name}.py"
    for name in ("blocks", "modality_fusion", "plane_denoiser", "score_fusion", "unet")
]


class PlaneCache:
    """Estimates and decoder maps of a fusion's frozen planes in float16, one file a plane and volume.

    The planes see whole slices, as at inference, and a patch gets its part of what they said. Alignments are trained, so what
    is kept is what comes before them. Files lie beside the prepared volumes, and are named after all they depend on: the
    volume's voxels, weights, precision and the planes' code.

    network: whose planes they are; dataset: the patches; epochs, share: length of the training, and the share of draws at
    gamma = 0; precision: as the trainer's; wanted: False to compute all live, as for networks without frozen planes.
    """

    def __init__(
        self, network: nn.Module, dataset: PatchDataset, *, epochs: int, share: float, precision: str = "auto",
        wanted: bool = True,
    ) -> None:  # fmt: skip
        self.network, self.dataset, self.draws, self.wanted = network, dataset, epochs * dataset.samples * share, wanted
        self.half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(self._device()))
        self.ready = False
        self._paths: list[list[Path]] = []  # of every volume, of every member
        self._mapped: dict[str, dict[str, Tensor]] = {}

    def prepare(self) -> None:
        """Fill the cache, unless it is not wanted, does not pay or does not fit; one line says which."""
        network, patch = self.network, self.dataset.patch
        if not (self.wanted and isinstance(network, ScoreFusion) and network.fused and isinstance(patch, VolumePatch)):
            return
        network.eval()
        if hindrance := self._hindrance(patch):
            logger.info(f"planes are computed at every step, because {hindrance}")
            return
        count = len(self.dataset.volumes)
        first = idist.get_rank() * count // idist.get_world_size()  # processes meet each other's files half-way
        said = time.monotonic()
        for done, index in enumerate(np.roll(range(count), -first).tolist()):
            if time.monotonic() - said > PERIOD:
                said = time.monotonic()
                logger.info(f"planes: {done} of {count} volumes")
            for place in range(len(network.members)):
                self._maps(index, place)
        group = max(member.group for member in self._members())
        patch.block = [math.lcm(factor, group) for factor in patch.block]
        self.ready = True

    def recall(self, batchdata: Mapping[str, Any], gamma: Tensor) -> list[list[Said] | None]:
        """What every plane says of each sample of a batch of `image`, `case`, `start`, `mirrored`.

        None of samples that are mirrored, or whose gamma (B,) is not 0.
        """
        sides, live = list(batchdata["image"].shape[2:]), batchdata["mirrored"] | (gamma.cpu() != 0)
        return [
            None if now else self._said(int(case), start.tolist(), sides)
            for case, start, now in zip(batchdata["case"], batchdata["start"], live.tolist(), strict=True)
        ]

    def _members(self) -> list[Member]:
        return list(self.network.members)  # type: ignore[arg-type]

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _hindrance(self, patch: VolumePatch) -> str | None:
        """Why the planes had better be computed live, if so."""
        volumes = self.dataset.volumes
        if any(parameter.requires_grad for member in self._members() for parameter in member.denoiser.parameters()):
            return "they learn"
        if patch.augmentation.vary and patch.augmentation.measured < len(volumes[0]["image"]) - 1:
            return "conditions vary from draw to draw"
        if patch.augmentation.turn > 0:
            return "samples are turned"
        if self.draws < len(volumes):
            return f"{self.draws:.0f} draws at gamma = 0 are fewer than the {len(volumes)} volumes"
        voxels = [math.prod(volumes[index]["label"].shape[1:]) for index in range(len(volumes))]
        drawn = self.draws * (math.prod(patch.size) if patch.size else sum(voxels) / len(voxels))
        if drawn < sum(voxels):
            return f"{self.draws:.0f} draws at gamma = 0 hold fewer voxels than the volumes"
        self._paths = self._named(len(volumes))
        return self._lack_of_room(voxels)

    def _lack_of_room(self, voxels: Sequence[int]) -> str | None:
        """Half of the disk's free space may be taken. Says what is going to be written."""
        sizes = [_bytes_a_voxel(member) for member in self._members()]
        missing = [
            count * size
            for count, paths in zip(voxels, self._paths, strict=True)
            for size, path in zip(sizes, paths, strict=True)
            if not path.is_file()
        ]
        folder = self.dataset.volumes.folder
        needed, free = sum(missing) / 1e9, shutil.disk_usage(_there(folder)).free / 1e9
        if needed > free / 2:
            return f"{folder} has {free:.1f} GB free, and what they say takes {needed:.1f} GB of at most half of it"
        if missing:
            logger.info(f"planes: what they say at gamma = 0 is kept in {folder}, {needed:.2f} GB more")
        return None

    def _named(self, count: int) -> list[list[Path]]:
        """The files of so many volumes, one a member."""
        keys, volumes = [self._key(member) for member in self._members()], self.dataset.volumes
        digests = [hashlib.sha256(volumes[index]["image"].numpy().data).hexdigest() for index in range(count)]
        names = [[hashlib.sha256((digest + key).encode()).hexdigest() for key in keys] for digest in digests]
        return [[volumes.folder / f"{name}.planes.pt" for name in row] for row in names]

    def _key(self, member: Member) -> str:
        """A name for all that a plane's answer depends on besides the volume."""
        settings = sorted((key, value) for key, value in vars(member).items() if not key.startswith("_") and key != "training")
        content = hashlib.sha256(repr([self.half, settings, *(path.read_bytes() for path in PLANE_CODE)]).encode())
        for name, value in sorted(member.get_submodule("denoiser").state_dict().items()):
            content.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()

    def _maps(self, index: int, place: int) -> dict[str, Tensor]:
        """`estimate` (H, W, D), and a map (S, h, w, C) under the number of each level."""
        key = f"{index} {place}"
        if key not in self._mapped:
            member = self._members()[place]
            names = ["estimate", *map(str, range(len(member.alignments)))]
            self._mapped[key] = kept(self._paths[index][place], names, lambda: self._computed(index, member))
        return self._mapped[key]

    @torch.no_grad()
    def _computed(self, index: int, member: Member) -> dict[str, Tensor]:
        whole = VolumePatch(degradation=getattr(self.dataset.patch, "degradation", None))
        volume = whole(**self.dataset.volumes[index], rng=np.random.default_rng())
        x = volume["image"][None].to(self._device())
        caught: list[list[Tensor]] = [[] for _ in member.alignments]

        def catch(level: int) -> Any:
            return lambda _, inputs: caught[level].append(inputs[0].movedim(1, 3).half().cpu())

        hooks = [alignment.register_forward_pre_hook(catch(level)) for level, alignment in enumerate(_levels(member))]
        try:
            with autocast(x.device, self.half):
                estimate, _ = member(x, torch.zeros_like(x[:, :1]), torch.zeros(1, device=x.device), 32)
        finally:
            for hook in hooks:
                hook.remove()
        maps = {str(level): torch.cat(parts).contiguous() for level, parts in enumerate(caught)}
        return {"estimate": estimate[0, 0].half().cpu().contiguous(), **maps}

    def _said(self, index: int, start: list[int], sides: list[int]) -> list[Said]:
        said = []
        for place, member in enumerate(self._members()):
            whole, axis = self._maps(index, place), member.axis - 2
            maps = []
            for level, alignment in enumerate(_levels(member)):
                first, extent = ([-(-length // alignment.slices) for length in lengths] for lengths in (start, sides))
                # Slices come first, one by one, and as many as fill the groups that the deepest level joins.
                order = [axis, *(other for other in range(3) if other != axis)]
                first, extent = ([values[other] for other in order] for values in (first, extent))
                first[0], extent[0] = start[axis], -(-sides[axis] // member.group) * member.group
                maps.append(self._part(whole[str(level)], first, extent).movedim(3, 1))
            said.append((self._part(whole["estimate"], start, sides), maps))
        return said

    def _part(self, volume: Tensor, start: Sequence[int], extent: Sequence[int]) -> Tensor:
        """A box of the first three axes in float32; zeros, which is what planes say of background, where the volume ends."""
        for axis, (first, length) in enumerate(zip(start, extent, strict=True)):
            volume = volume.narrow(axis, first, min(length, volume.shape[axis] - first))
        pads = [pad for axis in (2, 1, 0) for pad in (0, extent[axis] - volume.shape[axis])]
        volume = F.pad(volume, [0] * 2 * (volume.dim() - 3) + pads) if any(pads) else volume
        return volume.to(self._device(), torch.float32)


class RecallingFusion(nn.Module):
    """A network as it is trained: where its planes' answers are `kept`, they are recalled instead of computed.

    planes: above 0, what the planes say follows in further channels (B, 1 + N, ...), for `NoiseLoss`.
    """

    def __init__(self, network: nn.Module, planes: float = 0.0) -> None:
        super().__init__()
        self.network, self.planes = network, planes

    def forward(self, x: Tensor, x_t: Tensor, timesteps: Tensor, kept: Sequence[Sequence[Said] | None] = ()) -> Tensor:
        """As `ScoreFusion`; kept: for each sample what `PlaneCache` recalls, if it does."""
        network: Any = self.network  # members and fusion are asked for only where there are some
        if self.planes > 0:
            estimates, aligned = network.estimates(x, x_t, timesteps)
            return torch.cat([network.fusion(x, x_t, timesteps, estimates, aligned), estimates], dim=1)
        if not any(kept):
            return network(x, x_t, timesteps)
        answers = []
        for place, said in enumerate(kept):
            one = slice(place, place + 1)
            live = said is None
            answers.append(network.estimates(x[one], x_t[one], timesteps[one]) if live else network.recalled(said))
        estimates = torch.cat([estimate for estimate, _ in answers])
        aligned = [torch.cat(level) for level in zip(*(maps for _, maps in answers), strict=True)]
        return network.fusion(x, x_t, timesteps, estimates, aligned)


def _levels(member: Member) -> list[Alignment]:
    return list(member.alignments)  # type: ignore[arg-type]


def _bytes_a_voxel(member: Member) -> float:
    """Of the file of a plane, in float16: the estimate, and C channels a slice at a coarser grid for each level."""
    return 2.0 * (1 + sum(next(level.parameters()).shape[1] / level.slices**3 for level in _levels(member)))


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in [folder, *folder.absolute().parents] if path.exists())
