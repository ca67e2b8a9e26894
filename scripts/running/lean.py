# SPDX-License-Identifier: Apache-2.0
"""MONAI without what is optional to it, which takes a third of the CPU time until the first network call."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..bundle import bundle_root

# MONAI imports all of itself at once, and these wherever it finds them; it works, and is tested, where they are not installed.
OPTIONAL = ("PIL", "itk", "matplotlib", "pandas", "requests", "scipy", "skimage", "sklearn", "tensorboard")
OTHERS = ("torch", "ignite.engine", "nibabel")  # of what MONAI imports, and what may want the same

_lean = False


def is_lean() -> bool:
    """Whether `import_monai` was the one to import MONAI."""
    return _lean


def import_monai() -> None:
    """Import MONAI as if none of `OPTIONAL` were installed, unless it is there already.

    MONAI alone then does without them, until this process ends: others, and we, import them as ever.
    """
    if "monai" in sys.modules:
        return
    global _lean
    _lean = True
    for name in OTHERS:
        import_module(name)
    there = {name: sys.modules[name] for name in OPTIONAL if name in sys.modules}
    try:
        sys.modules.update(dict.fromkeys(OPTIONAL))  # type: ignore[arg-type]  # None: what Python takes for not installed
        import_module("monai.bundle")
        import_module("monai.engines")
    finally:
        for name in OPTIONAL:
            del sys.modules[name]
        sys.modules.update(there)


def all_ours(*, task: str = "", overlays: Sequence[str] = (), settings: Sequence[str] = (), **options: Any) -> bool:
    """Whether options of a command bring no component of somebody else, who may want all of MONAI."""
    named = all(Path(bundle_root(), "configs", f"{name}.yaml").is_file() for name in overlays)
    return named and Path(task).suffix != ".yaml" and not any("_target_" in text for text in settings)
