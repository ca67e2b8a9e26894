# SPDX-License-Identifier: Apache-2.0
"""Prepared volumes, kept as files of which only what is used is read."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data.utils import pickle_hashing
from monai.transforms import Compose
from monai.transforms.traits import RandomizableTrait
from monai.utils.misc import ensure_tuple
from torch import Tensor

from ..errors import BadInput
from ..files import whole, write_tensors

logger = logging.getLogger(__name__)

KEYS = ("image", "label")
CODE = [file for room in ("data", "measurement") for file in sorted(Path(__file__).parents[1].glob(f"{room}/**/*.py"))]


class VolumeCache:
    """Cases as a transform prepares them: computed by the first process that asks, mapped into memory by all of them.

    data: cases whose `image` and `label` are one path or DICOM series or several; transform: deterministic, gives `image`
    (C, H, W, D) and `label` (1, H, W, D), of at most a few units so that float16 does; cache_dir: holds one file a case, named
    after all that it depends on: the case's files, the transform's settings and its code. Files appear whole or not at all, so
    processes and trainings may share the folder, and it may be deleted at any time.
    Raises BadInput when the transform is random, a case's file is missing or the folder cannot be written to.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Any, cache_dir: str | Path) -> None:
        self.data, self.transform, self.folder = data, transform, Path(cache_dir).expanduser()
        self._recipe = _recipe(transform)  # once: a copy that went to another process may not pickle alike
        self._mapped: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Image and label of a case in float16, on disk until they are cut."""
        if index not in self._mapped:
            self._mapped[index] = self._map(self.data[index])
        return self._mapped[index]

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps, in whose place another process would get copies of the volumes."""
        return {**vars(self), "_mapped": {}}

    def _map(self, case: Mapping[str, Any]) -> dict[str, Tensor]:
        def prepared() -> dict[str, Tensor]:
            volumes = self.transform(case)
            return {key: volumes[key].half() for key in KEYS}

        return kept(self.folder / f"{self._name(case)}.pt", KEYS, prepared)

    def _name(self, case: Mapping[str, Any]) -> str:
        sources = [source for key in KEYS for source in ensure_tuple(case[key])]
        stamps = [_stamp(Path(file)) for source in sources for file in getattr(source, "files", [source])]  # of a DICOM series
        return hashlib.sha256(repr((self._recipe, stamps, case.get("kind"))).encode()).hexdigest()


def _recipe(transform: Any) -> str:
    """What prepared volumes depend on besides the case: settings and code."""
    # The steps alone: MONAI's Compose has a random state, another one in every process.
    steps = Compose(transform).flatten().transforms  # type: ignore[no-untyped-call]
    for step in steps:
        if isinstance(step, RandomizableTrait):
            raise BadInput(f"{type(step).__name__} is random but volumes are prepared once; take it out of train#preprocessing")
    return pickle_hashing((steps, [path.read_bytes() for path in CODE])).decode()


def _stamp(file: Path) -> tuple[str, int, int]:
    """Where a file is, and which version of it."""
    file = file.expanduser().resolve()
    try:
        stat = file.stat()
    except OSError as error:
        raise BadInput(f"{file}: there is no such file; check dataset_dir or the datalist") from error
    return str(file), stat.st_size, stat.st_mtime_ns


def kept(path: Path, names: Sequence[str], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of these names in a file, mapped; made and written before where it is missing or damaged.

    No file stays open. Raises BadInput when the file cannot be written.
    """
    if path.is_file():
        try:
            return _read(path, names)
        except Exception as error:  # a truncated file fails in many ways
            logger.warning(f"{path}: is damaged ({type(error).__name__}), so it is prepared again")
    content = dict(make())
    with whole(path, "make room or give another --cache_dir") as part:
        write_tensors(part, content)
    return _read(path, names)


def _read(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    tensors = torch.load(path, mmap=True, weights_only=True)
    return {name: tensors[name] for name in names}
