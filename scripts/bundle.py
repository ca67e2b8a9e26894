# SPDX-License-Identifier: Apache-2.0
"""Where the bundle lies and which version it is."""

import json
from pathlib import Path


def bundle_root() -> str:
    """The folder that holds `configs` and `models`, wherever a command is started; an installed package holds them itself."""
    package = Path(__file__).resolve().parent
    return str(package if (package / "configs").is_dir() else package.parent)


def bundle_version() -> str:
    """As in configs/metadata.json."""
    return str(json.loads(Path(bundle_root(), "configs", "metadata.json").read_text(encoding="utf-8"))["version"])


def task_configs() -> dict[str, Path]:
    """Every configs/task_NAME.yaml by its NAME, in order."""
    return {file.stem.removeprefix("task_"): file for file in sorted(Path(bundle_root(), "configs").glob("task_*.yaml"))}


def path_in(folder: str | Path, path: str, **names: str) -> str:
    """A path below a folder, for configs. names: go where `{name}` stands in it; what is not among them stays as it is."""
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    return f"{folder}/{path}"
