# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: saved atomically, resumed exactly; and networks ready to be trained."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ..errors import BadInput
from ..files import clean_leftovers
from ..networks import ScoreFusion, VolumeDenoiser
from ..networks.blocks import ResidualBlock
from ..networks.weights import load_members, load_weights, read, unlike, weights_of, write

EPOCHS = "max_epochs"
PLAIN = (bool, int, float, str, type(None))
ANEW = "give the same, or another folder, where a training may start from these weights (docs/training.md)"
FAR = ("last_epoch", "_step_count", "_last_lr")  # of a scheduler's state

logger = logging.getLogger(__name__)


class LatestCheckpoint:
    """Saves everything with a state after every epoch and, when the file is there at the start, continues from it.

    path: file, replaced atomically; objects: name -> anything with `state_dict` and `load_state_dict`, of which parameters of
    "network" that do not learn must be the same when a run goes on; settings: what must be the same as well, plain values or
    components, which are known by theirs, but that a finished run may get more epochs. The data order and the noise
    depend on the step alone, so the step is the only other thing to keep, and for tables the seconds that were spent.
    """

    def __init__(self, path: str, objects: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        self.path, self.objects, self.settings = Path(path), objects, _plain(settings or {})
        self.seconds, self._since = 0.0, time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Resume when the engine starts, save when an epoch ends."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore objects, random state and step from the file, if it exists; what kills left beside it goes."""
        self.seconds, self._since = 0.0, time.monotonic()
        if idist.get_rank() == 0:
            clean_leftovers(self.path.parent, self.path.name)
        saved = self.check()
        if saved is None:
            return
        epochs, wanted = saved.get("settings", {}).get(EPOCHS), self.settings.get(EPOCHS)
        longer = None not in (epochs, wanted) and epochs != wanted
        try:
            for name, item in self.objects.items():
                state = saved["objects"][name]
                if longer and isinstance(item, LRScheduler):  # how far it is, and not how long it was to be
                    state = {**item.state_dict(), **{key: state[key] for key in FAR if key in state}}
                item.load_state_dict(state)
            torch.set_rng_state(saved["rng"])
            if torch.cuda.is_available() and saved.get("rng_cuda") is not None:
                torch.cuda.set_rng_state(saved["rng_cuda"])
            engine.state.epoch, engine.state.iteration = int(saved["epoch"]), int(saved["iteration"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise self._foreign() from error
        self.seconds = saved.get("seconds", 0.0)
        if engine.state.epoch == engine.state.max_epochs:
            logger.info(f"{self.path} is finished: nothing is trained; raise max_epochs to go on")
            return
        logger.info(f"resumed {self.path} at step {engine.state.iteration}")
        if longer:
            logger.info(f"a finished training of {epochs} epochs goes on to {wanted}, at the learning rate of so many")

    def check(self) -> dict[str, Any] | None:
        """What the file holds, if it is there. Raises BadInput when it was made with other settings, cases or frozen planes."""
        if not self.path.is_file():
            return None
        saved = read(self.path)
        if not isinstance(saved, dict) or not isinstance(settings := saved.get("settings", {}), dict):
            raise self._foreign()
        before = _plain(settings)
        for key in sorted(before.keys() & self.settings.keys()):
            was, wanted = before[key], self.settings[key]
            if key == EPOCHS and was != wanted and not was == saved["epoch"] < wanted:
                remedy = "finish it, and more may follow, or give --ckpt_dir another folder"
                raise BadInput(
                    f"{self.path}: a training of {was} epochs, {saved['epoch']} of them done, not of {wanted}; {remedy}"
                )
            if key != EPOCHS and was != wanted:
                raise BadInput(f"{self.path}: was made with {key} = {was}, not {wanted}; {ANEW}")
        self._check_frozen(saved)
        return saved

    def _check_frozen(self, saved: Mapping[str, Any]) -> None:
        network = self.objects.get("network")
        named = network.named_parameters() if isinstance(network, nn.Module) else ()
        frozen = {name: value.detach().cpu() for name, value in named if not value.requires_grad}
        try:
            before = {name: saved["objects"]["network"][name] for name in frozen}
            same = unlike(frozen, before) or all(torch.equal(value, before[name]) for name, value in frozen.items())
        except (AttributeError, KeyError, TypeError) as error:
            raise self._foreign() from error
        if not same:  # of another shape they are refused as they are loaded
            raise BadInput(f"{self.path}: was made with planes of other weights; give the first ones, or another folder")

    def _foreign(self) -> BadInput:
        return BadInput(f"{self.path}: checkpoint of another network or setting; give --ckpt_dir another folder")

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
        write(state, self.path)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file keeps them: `a#b` in place of nested ones, and of a component its class and its plain values."""
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        inner: dict[str, Any] = {}
        if isinstance(value, Mapping):
            inner = _plain(value)
        elif hasattr(value, "__dict__"):
            inner = {name: own for name, own in vars(value).items() if name != "training" and name[0] != "_" and _is_plain(own)}
            plain[key] = type(value).__name__
        else:
            plain[key] = value
        plain |= {f"{key}#{name}": one for name, one in inner.items()}
    return plain


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) in (list, tuple) else type(value) in PLAIN


def check_start(checkpoint: LatestCheckpoint, watched: Sequence[Any]) -> None:
    """Before the first step, what would end a training later: a checkpoint it cannot go on from, a case that cannot be read.

    watched: the cases that validate it. Raises BadInput.
    """
    checkpoint.check()
    for place in range(len(watched)):
        watched[place]


def plane_to_train(network: nn.Module, weights: str | None = None, *, device: torch.device | str = "cpu") -> nn.Module:
    """A network of one plane ready for training, from weights of the same plane when a file is given.

    weights: a checkpoint of a plane, or a file of several planes or of a fusion, out of which the plane is taken.
    """
    return (network if weights is None else load_weights(network, weights)).to(device)


def fusion_to_train(
    network: ScoreFusion | VolumeDenoiser, plane_weights: str, fusion_weights: str | None = None, *,
    shared: bool = False, train_planes: float = 0.0, checkpointing: bool = False, device: torch.device | str = "cpu",
) -> ScoreFusion | VolumeDenoiser:  # fmt: skip
    """A fusion network ready for training: trained planes, and the fusion of an earlier phase when one is given.

    A `VolumeDenoiser` has no planes to load, and starts anew.

    plane_weights, shared: as for `load_members`; fusion_weights: a checkpoint or models/model.pt, whose planes are not used;
    its features, if it had none, start at zero; train_planes: above 0 they learn with it, else they are frozen; checkpointing:
    recompute the 3D network's activations in the backward pass.
    """
    if fusion_weights is not None:
        own, saved = network.state_dict(), weights_of(fusion_weights)
        if unlike(own, saved) or any(".alignments." not in key for key in own.keys() ^ saved.keys()):
            raise BadInput(f"{fusion_weights}: a fusion of other planes or another size; use the overlays it was trained with")
        network.load_state_dict(saved, strict=False)
    if train_planes > 0 and type(network) is not ScoreFusion:
        raise BadInput(f"train_planes {train_planes:g}: this network has no planes that learn with their fusion; leave it out")
    if isinstance(network, ScoreFusion):
        load_members(network, plane_weights, shared=shared)
        if train_planes > 0:
            _thaw(network, shared)
        if torch.device(device).type == "cuda":  # many slices at once fill a GPU, and memory is not what it lacks
            network.slice_batch = 512
    for module in network.modules():  # frozen planes never recompute
        if isinstance(module, ResidualBlock):
            module.checkpointing = checkpointing
    return network.to(device)


def _thaw(network: ScoreFusion, shared: bool) -> None:
    """Let the planes learn with their fusion; shared: one denoiser for all of them."""
    for member in network.members:
        if shared:
            member.denoiser = network.members[0].denoiser
        member.get_submodule("denoiser").requires_grad_(True)
