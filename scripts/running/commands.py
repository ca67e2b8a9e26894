# SPDX-License-Identifier: Apache-2.0
"""The main commands: thin calls of the bundle's workflows, as `python -m monai.bundle run` makes them too."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..data.advice import SUPER_RESOLUTION, default_task
from ..errors import BadInput
from ..logs import say
from ..measurement.planes import SPACE_TIME


def restore(
    source: str, output: str, *, task: str | None = None, cluster: str | None = None, workers: int | None = None, **options: Any
) -> None:
    """Translate a file, a folder or a zip, NIfTI or DICOM, into a folder; the rest as for `_run`.

    task: by default any, but of weights of one's own super_resolution, for which `train` trains by default; cluster, workers:
    as `Cluster` has them. Of a task of loops the source is a cine (`restore_cine`).
    """
    if cluster is not None:
        from .cluster import Cluster

        options["change"] = Cluster(cluster, workers).take_over
    elif workers is not None:
        raise BadInput(f"--workers {workers}: are of a cluster; add --cluster local")
    task = task or default_task(options.get("ckpt_path"))
    from .cine import of_loops, restore_cine  # here: they take a moment to import

    run = partial(_run, "inference", "inference", task=task, output_dir=output, **options)
    if of_loops(task):
        restore_cine(source, output, run, periodic=options.get("periodic"))
    else:
        run(dataset_dir=source)
    say(f"results: {output}; next: score-fusion report {output}")


def evaluate(dataset_dir: str, output: str, **options: Any) -> None:
    """Simulate measurements of a split, restore and measure them; the rest as for `_run`."""
    _run("evaluate", "evaluating", dataset_dir=dataset_dir, output_dir=output, **options)
    say(f"results: {Path(output, 'results.json')}; next: score-fusion tables {output}, score-fusion report {output}")


def train(dataset_dir: str, output: str, *, plane: str | None = None, **options: Any) -> None:
    """Train the denoiser of a plane, or without one the fusion of planes that are there; goes on where it stopped.

    plane: or space-time, the member that sees a loop whole.
    """
    cut = {} if plane is None else {"plane": plane}
    if plane == SPACE_TIME:
        options["overlays"] = ["network_space_time", *options.get("overlays", [])]
    workflow = "train_3d" if plane is None else "train_2d"
    options.setdefault("cache_dir", str(Path(output, "cache")))
    _run(workflow, "training", dataset_dir=dataset_dir, ckpt_dir=output, **cut, **options)
    say(f"weights: {Path(output, 'latest.pt')}; next: score-fusion export {Path(output, 'latest.pt')} my_{plane or 'model'}.pt")


def _run(
    workflow: str, run_id: str, *, task: str = SUPER_RESOLUTION, contrast: str | None = None, overlays: Sequence[str] = (),
    settings: Sequence[str] = (), **options: Any,
) -> None:  # fmt: skip
    """task: NAME of configs/task_NAME.yaml, or a file; contrast: condition and target of one of a single contrast; overlays:
    further config files; settings: KEY=VALUE, ids of the configs, and so are options.
    """
    if contrast is not None:
        options = {"conditions": [contrast], "target": contrast, **options}
    from .workflow import run_workflow, task_config  # here: they take seconds to import

    run_workflow(workflow, [task_config(task), *overlays], run_id=run_id, **{**options, **dict(map(setting, settings))})


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as YAML reads it. Raises BadInput for anything else, and for code."""
    key, separator, value = text.partition("=")
    if not (key and separator) or value.lstrip("'\" ").startswith(("$", "%")):
        raise BadInput(f"--set {text}: is not KEY=VALUE with a plain value; docs/configs.md lists the keys")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {text}: the value cannot be read; quote it, as in --set \"planes=['coronal']\"") from error
