# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: saved atomically, resumed exactly; and weights alone."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from .. import sha256
from ..errors import BadInput
from ..networks import ScoreFusion, VolumeDenoiser
from ..networks.blocks import ResidualBlock
from ..planes import PLANES

logger = logging.getLogger(__name__)
CHECKSUMS = "checksums.json"
PLANE = "plane_axis"


class LatestCheckpoint:
    """Saves everything with a state after every epoch and, when the file is there at the start, continues from it.

    path: file, replaced atomically; objects: name -> anything with `state_dict` and `load_state_dict`; settings: plain
    values that must be the same when a run goes on. The data order and the noise depend on the step alone, so the step is
    the only other thing to keep, and for tables the seconds that were spent.
    """

    def __init__(self, path: str, objects: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        self.path, self.objects, self.settings = Path(path), objects, dict(settings or {})
        self.seconds, self._since = 0.0, time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Resume when the engine starts, save when an epoch ends."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore objects, random state and step from the file, if it exists and resuming is wanted."""
        self.seconds, self._since = 0.0, time.monotonic()
        if not self.path.is_file():
            return
        saved = read(self.path)
        self._check(saved)
        try:
            for name, item in self.objects.items():
                item.load_state_dict(saved["objects"][name])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BadInput(f"{self.path}: checkpoint of another network or setting; give --ckpt_dir another folder") from error
        torch.set_rng_state(saved["rng"])
        if torch.cuda.is_available() and saved.get("rng_cuda") is not None:
            torch.cuda.set_rng_state(saved["rng_cuda"])
        engine.state.epoch, engine.state.iteration = saved["epoch"], saved["iteration"]
        self.seconds = saved.get("seconds", 0.0)
        logger.info(f"resumed {self.path} at step {engine.state.iteration}")

    def _check(self, saved: Any) -> None:
        """Raise BadInput when the checkpoint was made with other settings."""
        before = saved.get("settings", {}) if isinstance(saved, Mapping) else {}
        for key in before.keys() & self.settings.keys():
            if before[key] != self.settings[key]:
                fact = f"made with {key} = {before[key]}, not {self.settings[key]}"
                raise BadInput(f"{self.path}: {fact}; give --ckpt_dir another folder, or the same settings")

    def save(self, engine: Engine) -> None:
        """Write the file, in the first process; a kill at any moment leaves the old or the new one whole."""
        if idist.get_rank() > 0:
            return
        state = {
            "objects": {name: item.state_dict() for name, item in self.objects.items()},
            "settings": self.settings,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "seconds": self.seconds + time.monotonic() - self._since,
        }
        save_atomically(state, self.path)


def save_atomically(content: Any, path: Path) -> None:
    """`torch.save` to a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(content, temporary)
    temporary.replace(path)


def read(path: Path) -> Any:
    """A file of tensors and plain values. Raises BadInput when it is missing or broken."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such weights file; train them first or give another path") from error
    except Exception as error:
        raise BadInput(f"{path}: not a weights file of plain tensors ({type(error).__name__})") from error


def averaged(path: str | Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint. Raises BadInput when the file is something else."""
    try:
        weights: dict[str, Tensor] = read(Path(path))["objects"]["ema"]
    except (KeyError, TypeError, IndexError) as error:
        raise BadInput(f"{path}: not a checkpoint of a training; give its latest.pt") from error
    return weights


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict strictly (float16 files into the network's own type); returns the network.

    path: a plain state dict, or a checkpoint of this package, of which the averaged weights are taken. A network without
    fusion, which averages its planes, takes the planes of a file that has one.
    Raises BadInput when the file is missing, broken, not the one listed in `checksums.json` beside it, or belongs to
    another size of network.
    """
    own, state = network.state_dict(), weights_of(path)
    if not any(key.startswith("fusion.") for key in own):
        state = _planes_alone(own, state)
    differing = [key for key in own.keys() | state.keys() if key not in own or key not in state]
    differing += [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    differing += [key for key in own if key.endswith(PLANE) and not differing and int(own[key]) != int(state[key])]
    if differing:
        raise BadInput(
            f"{path}: weights of another network ({len(differing)} tensors differ, first {sorted(differing)[0]}); "
            "use the size, planes and task overlays they were trained with"
        )
    network.load_state_dict(state)
    return network


def weights_of(path: str | Path) -> dict[str, Tensor]:
    """A plain state dict, or the averaged weights of a checkpoint. Raises BadInput when the file is not what it should be."""
    check_sum(Path(path))
    state: dict[str, Tensor] = read(Path(path))
    return averaged(path) if "objects" in state else state


def _planes_alone(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a network without fusion takes of a state dict: its own planes, wherever they stand there."""
    places = {int(value): key.removesuffix(PLANE) for key, value in state.items() if key.endswith(PLANE)}
    taken: dict[str, Tensor] = {}
    for name, plane in own.items():
        if name.endswith(PLANE):
            # Its own place if that is the same plane: of members that see other conditions, several are of one plane.
            place = name.removesuffix(PLANE) if state.get(name) == plane else places.get(int(plane), "no such plane")
            parts = {key.removeprefix(place): value for key, value in state.items() if key.startswith(place)}
            mine = name.removesuffix(PLANE)
            taken |= {mine + key: value for key, value in parts.items() if not key.startswith("alignments.")}
    return taken or state


def load_members(network: ScoreFusion, pattern: str) -> ScoreFusion:
    """Give each member of a fusion the weights of its plane.

    pattern: a path with `{plane}` where the plane's name goes, for planes trained alone by `train_2d.yaml`; or one file
    that holds them all, as models/model.pt does. Members of a `ModalityFusion` need `{seen}` too, for the places of the
    conditions they see, as in runs/{seen}_{plane}/latest.pt with 0_coronal. Raises BadInput when a file is missing or does not
    fit.
    """
    for member in network.members:
        seen = "".join(map(str, getattr(member, "seen", [])))
        load_weights(_alone(member), pattern.format(plane=member.plane, seen=seen))
    return network


def _alone(member: nn.Module) -> nn.Module:
    """A view of one member with the parameter names that a network of this plane alone has."""
    inner, outer = nn.Module(), nn.Module()
    inner.add_module("denoiser", member.get_submodule("denoiser"))
    inner.register_buffer("plane_axis", member.get_buffer("plane_axis"))
    outer.add_module("members", nn.ModuleList([inner]))
    return outer


def plane_to_train(network: nn.Module, weights: str | None = None, *, device: torch.device | str = "cpu") -> nn.Module:
    """A network of one plane ready for training, from weights of the same plane when a file is given.

    weights: a checkpoint of a plane, or a file of several planes or of a fusion, out of which the plane is taken.
    """
    return (network if weights is None else load_weights(network, weights)).to(device)


def fusion_to_train(
    network: ScoreFusion | VolumeDenoiser, plane_weights: str, fusion_weights: str | None = None, *,
    checkpointing: bool = False, device: torch.device | str = "cpu",
) -> ScoreFusion | VolumeDenoiser:  # fmt: skip
    """A fusion network ready for training: frozen trained planes, and the fusion of an earlier phase when one is given.

    A `VolumeDenoiser` has no planes to load, and starts anew.

    plane_weights: pattern of `load_members`; fusion_weights: a checkpoint or models/model.pt, whose planes are not used; its
    features, if it had none, start at zero; checkpointing: recompute the 3D network's activations in the backward pass.
    """
    if fusion_weights is not None:
        own, saved = network.state_dict(), weights_of(fusion_weights)
        differing = [key for key in own.keys() & saved.keys() if own[key].shape != saved[key].shape]
        if differing or any(".alignments." not in key for key in own.keys() ^ saved.keys()):
            raise BadInput(f"{fusion_weights}: a fusion of other planes or another size; use the overlays it was trained with")
        network.load_state_dict(saved, strict=False)
    if isinstance(network, ScoreFusion):
        load_members(network, plane_weights)
    for module in network.modules():  # frozen planes never recompute
        if isinstance(module, ResidualBlock):
            module.checkpointing = checkpointing
    return network.to(device)


def export_weights(source: str, target: str, half: bool = True) -> None:
    """Write the averaged weights of a checkpoint as a plain state dict, in float16 unless told otherwise.

    source: a checkpoint, or a pattern with `{plane}`: all planes there are, to be used together without a fusion.
    The file's sha256 is listed in `checksums.json` beside it.
    """
    state, path = _together(source) if "{plane}" in source else averaged(source), Path(target)
    kept = {key: _halved(value) if half else value for key, value in state.items()}
    save_atomically(kept, path)
    listed = path.with_name(CHECKSUMS)
    sums = json.loads(listed.read_text()) if listed.is_file() else {}
    sums[path.name] = sha256(path)
    listed.write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n")


def _together(pattern: str) -> dict[str, Tensor]:
    """Planes trained alone as the members of one network that averages them."""
    files = [file for plane in PLANES if Path(file := pattern.format(plane=plane)).is_file()]
    if not files:
        raise BadInput(f"{pattern}: no such file for any of {', '.join(PLANES)}; train planes first or give another path")
    planes = enumerate(averaged(file) for file in files)
    return {key.replace("members.0.", f"members.{place}.", 1): value for place, plane in planes for key, value in plane.items()}


def _halved(value: Tensor) -> Tensor:
    """In float16; integers, as SwinUNETR's indices, in int16 where they fit."""
    if value.is_floating_point():
        return value.half()
    fits = value.dim() > 0 and value.dtype == torch.int64 and int(value.abs().max()) < 2**15
    return value.short() if fits else value


def check_sum(path: Path) -> None:
    """Raise BadInput when the file differs from what `checksums.json` beside it lists; unlisted files pass."""
    listed = path.with_name(CHECKSUMS)
    if not (path.is_file() and listed.is_file()):
        return
    wanted = json.loads(listed.read_text()).get(path.name)
    if wanted is not None and wanted != sha256(path):
        raise BadInput(f"{path}: not the file listed in {CHECKSUMS}; fetch it again, or export your own under another name")
