# SPDX-License-Identifier: Apache-2.0
"""Other programs that this bundle works in; each room has its own requirements and knows nothing of the others."""

from pathlib import Path

from .. import bundle_root


def task_names() -> list[str]:
    """Every task that has a `configs/task_NAME.yaml`, by name."""
    return sorted(path.stem.removeprefix("task_") for path in Path(bundle_root(), "configs").glob("task_*.yaml"))
