# SPDX-License-Identifier: Apache-2.0
"""Weight files: read strictly, checked against their listed sums, taken apart by plane, and exported."""

import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..files import sha256, whole, write_json, write_tensors
from ..logs import say
from ..measurement.planes import MEMBERS
from ..models import CHECKSUMS, listed_sums
from ..trust import check_weights, note
from .quantization import attach_ranges, read_ranges
from .score_fusion import ScoreFusion

logger = logging.getLogger(__name__)
PLANE = "plane_axis"


def write(content: Any, path: Path) -> None:
    """Tensors and plain values, whole or not at all; commands of ours trust the file from then on."""
    with whole(path, "make room or give another place to write to") as part:
        write_tensors(part, content)
        note(part, path)


def read(path: Path) -> Any:
    """A file of tensors and plain values. Raises BadInput when it is missing, broken or packed."""
    try:
        _check_packing(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such weights file; train them first or give another path") from error
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{path}: not a weights file of plain tensors ({type(error).__name__})") from error


def _check_packing(path: Path) -> None:
    """Raise BadInput for a file that holds more than its size: PyTorch packs nothing, and unpacks whatever it is given."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > path.stat().st_size:
        raise BadInput(f"{path}: is packed, {size / 1e9:.1f} GB of it, as weights never are; take them from who trained them")


def checked(path: str | Path) -> Any:
    """As `read`, of weights that are what `checksums.json` beside them lists, and whose origin a command of ours trusts."""
    check_sum(Path(path))
    check_weights(Path(path))
    return read(Path(path))


def averaged(path: str | Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint. Raises BadInput when the file is something else."""
    return averaged_of(checked(path), path)


def averaged_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The averaged weights of what a checkpoint holds."""
    try:
        return named_tensors(content["objects"]["ema"], path)
    except (KeyError, TypeError, IndexError) as error:
        raise BadInput(f"{path}: not a checkpoint of a training; give its latest.pt") from error


def named_tensors(content: Any, path: str | Path) -> dict[str, Tensor]:
    """A state dict of ordinary tensors. Raises BadInput for anything else."""
    if not isinstance(content, dict) or not all(isinstance(key, str) and _ordinary(content[key]) for key in content):
        raise BadInput(f"{path}: holds no tensors by name, as weights do; give those of a training")
    return content


def _ordinary(value: Any) -> bool:
    """A tensor whose every number is in the file: one may claim to be of any size, and repeat a few of them."""
    dense = torch.is_tensor(value) and value.layout == torch.strided and value.device.type == "cpu"
    return dense and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def unlike(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names that both have, of tensors of other shapes or kinds of numbers."""
    both = [key for key in own if key in other]
    return [key for key in both if own[key].shape != other[key].shape or _kind(own[key]) != _kind(other[key])]


def _kind(value: Tensor) -> tuple[bool, bool]:
    return value.is_floating_point(), value.is_complex()


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict strictly (float16 files into the network's own type); returns the network.

    path: a plain state dict, or a checkpoint of this package, of which the averaged weights are taken. A network without
    fusion, which averages its planes, takes the planes of a file that has one.
    Raises BadInput when the file is missing, broken, not the one listed in `checksums.json` beside it, of somebody whom a
    command does not trust, or belongs to another size of network. Ranges for integers that lie beside it (`quantization`)
    come along.
    """
    own, state = network.state_dict(), weights_of(path)
    ranges = read_ranges(Path(path))
    if not any(key.startswith("fusion.") for key in own):
        state, ranges = _planes_alone(own, state), {}  # the planes may stand in other places
    differing = [key for key in own.keys() | state.keys() if key not in own or key not in state]
    differing += unlike(own, state)
    differing += [key for key in own if key.endswith(PLANE) and not differing and int(own[key]) != int(state[key])]
    if differing:
        raise BadInput(
            f"{path}: weights of another network ({len(differing)} tensors differ, first {sorted(differing)[0]}); "
            "use the size, planes and task overlays they were trained with"
        )
    network.load_state_dict(state)
    attach_ranges(network, ranges)
    return network


def weights_of(path: str | Path) -> dict[str, Tensor]:
    """A plain state dict, or the averaged weights of a checkpoint. Raises BadInput when the file is not what it should be."""
    content = checked(path)
    is_checkpoint = isinstance(content, dict) and "objects" in content
    return averaged_of(content, path) if is_checkpoint else named_tensors(content, path)


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


def load_members(network: ScoreFusion, pattern: str, *, shared: bool = False) -> ScoreFusion:
    """Give each member of a fusion the weights of its plane.

    pattern: a path with `{plane}` where the plane's name goes, for planes trained alone by `train_2d.yaml`; or one file
    that holds them all, as models/model.pt does. Members of a `ModalityFusion` need `{seen}` too, for the places of the
    conditions they see, as in runs/{seen}_{plane}/latest.pt with 0_coronal. shared: the first plane's weights serve them all.
    Raises BadInput when a file is missing or does not fit.
    """
    for member in list(network.members)[: 1 if shared else None]:
        seen = "".join(map(str, getattr(member, "seen", [])))
        load_weights(_alone(member), pattern.format(plane=member.plane, seen=seen))
    if shared:
        for member in network.members:
            member.get_submodule("denoiser").load_state_dict(network.members[0].get_submodule("denoiser").state_dict())
    return network


def own_or_shipped(own: str, shipped: str, planes: Sequence[str]) -> str:
    """Where the planes of a fusion are: of one's own, else those that ship; for `load_members`.

    own: a pattern with `{plane}`; shipped: a file that holds them all. Raises BadInput when some of one's own are missing, or
    all and none ship.
    """
    missing = [file for plane in planes if not Path(file := own.format(plane=plane, seen="")).is_file()]
    if not missing:
        return own
    if len(missing) < len(planes) or not Path(shipped).is_file():
        raise BadInput(f"{missing[0]}: no such weights file; train this plane first, or give --plane_weights")
    logger.warning(f"no planes of your own ({own}): the fusion is of the planes in {shipped}")
    return shipped


def _alone(member: nn.Module) -> nn.Module:
    """A view of one member with the parameter names that a network of this plane alone has."""
    inner, outer = nn.Module(), nn.Module()
    inner.add_module("denoiser", member.get_submodule("denoiser"))
    inner.register_buffer("plane_axis", member.get_buffer("plane_axis"))
    outer.add_module("members", nn.ModuleList([inner]))
    return outer


def export_weights(
    source: str, target: str, half: bool = True, *, overwrite: bool = False, replace_shipped: bool = False
) -> None:
    """Write the averaged weights of a checkpoint as a plain state dict, in float16 unless told otherwise.

    source: a checkpoint, or a pattern with `{plane}`: all planes there are, to be used together without a fusion. overwrite:
    replace a file that is there; replace_shipped: even one that ships, and list its new sha256.
    Raises BadInput, and writes nothing, for a file that may not be replaced.
    """
    path = Path(target).expanduser()
    shipped = path.name in listed_sums(path.parent)
    if shipped and not replace_shipped:
        raise BadInput(f"{path}: is a name of weights that ship; give another one (maintainers: --replace-shipped)")
    if path.exists() and not (overwrite or shipped):
        raise BadInput(f"{path}: is there already; give another name, or --overwrite")
    state = _together(source) if "{plane}" in source else averaged(source)
    write({key: _halved(value) if half else value for key, value in state.items()}, path)
    if shipped:
        write_json(path.with_name(CHECKSUMS), dict(sorted({**listed_sums(path.parent), path.name: sha256(path)}.items())))
    fused = any(key.startswith("fusion.") for key in state)
    say(f"weights: {path}" + f"; next: score-fusion restore SCAN -o OUT --weights {path}" * fused)


def _together(pattern: str) -> dict[str, Tensor]:
    """Planes trained alone as the members of one network that averages them."""
    files = [file for plane in MEMBERS if Path(file := pattern.format(plane=plane)).is_file()]
    if not files:
        raise BadInput(f"{pattern}: no such file for any of {', '.join(MEMBERS)}; train planes first or give another path")
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
    wanted = listed_sums(path.parent).get(path.name)
    if wanted is not None and path.is_file() and wanted != sha256(path):
        raise BadInput(f"{path}: not the file listed in {CHECKSUMS}; fetch it again, or export your own under another name")
