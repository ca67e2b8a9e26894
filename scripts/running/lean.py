# SPDX-License-Identifier: Apache-2.0
"""MONAI without what is optional to it, which takes a third of the CPU time until the first network call."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..bundle import bundle_root

# MONAI imports all of itself at once, and these wherever it finds them; it works, and is tested, where they are not installed.
OPTIONAL = ("PIL", "itk", "matplotlib", "pandas", "requests", "scipy", "skimage", "sklearn", "tensorboard")
OTHERS = ("ignite.engine", "nibabel")  # of what MONAI imports, and what may want the same
# Of this ignite takes one class, by which it knows an optimizer spread over processes when it writes a checkpoint; with it come
# all of PyTorch's sharding and sympy, half a second.
SPREAD, OPTIMIZER = "torch.distributed.optim", "ZeroRedundancyOptimizer"

_lean = False


def is_lean() -> bool:
    """Whether `import_monai` was the one to import MONAI."""
    return _lean


def import_monai() -> None:
    """Import MONAI as if none of `OPTIONAL` were installed, and ignite without `SPREAD`, unless MONAI is there already.

    They alone then do without these, until this process ends: others, and we, import them as ever.
    """
    if "monai" in sys.modules:
        return
    global _lean
    _lean = True
    import_module("torch")
    unknown = ModuleType(SPREAD)
    setattr(unknown, OPTIMIZER, type(OPTIMIZER, (), {}))
    with _taken_for({SPREAD: sys.modules.get(SPREAD, unknown)}):
        for name in OTHERS:
            import_module(name)
    with _taken_for(dict.fromkeys(OPTIONAL)):  # None: what Python takes for not installed
        import_module("monai.bundle")
        import_module("monai.engines")


@contextmanager
def _taken_for(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """While others are imported, these stand under their names."""
    there = {name: sys.modules[name] for name in modules if name in sys.modules}
    try:
        sys.modules.update(modules)  # type: ignore[arg-type]
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(there)


def all_ours(*, task: str = "", overlays: Sequence[str] = (), settings: Sequence[str] = (), **options: Any) -> bool:
    """Whether options of a command bring no component of somebody else, who may want all of MONAI."""
    named = all(Path(bundle_root(), "configs", f"{name}.yaml").is_file() for name in overlays)
    return named and Path(task).suffix != ".yaml" and not any("_target_" in text for text in settings)
