# SPDX-License-Identifier: Apache-2.0
"""The main commands: thin calls of the bundle's workflows, as `python -m monai.bundle run` makes them too."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..data.advice import SUPER_RESOLUTION, asked_of, default_task
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
    options |= {"task": task, "output_dir": output}
    run = partial(_run, "inference", "inference", **options)
    if asked_of([task])[1].loops:
        from .cine import restore_cine  # here: it takes a moment to import

        choices = {"periodic": options.get("periodic"), "keep_ids": _parsed("keep_ids", **options)}
        restore_cine(source, output, run, partial(_parsed, "provenance", **options), **choices)
    else:
        run(dataset_dir=source)
    say(f"results: {output}; next: score-fusion report {output}")


def evaluate(dataset_dir: str, output: str, *, predictions: str | None = None, **options: Any) -> None:
    """Simulate measurements of a split, restore and measure them; the rest as for `_run`.

    predictions: a folder of results that are there, measured instead of ours.
    """
    if predictions is not None:
        options["overlays"] = list(dict.fromkeys([*options.get("overlays", []), "predictions"]))
        options["predictions"] = predictions
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


def _run(workflow: str, run_id: str, **options: Any) -> None:
    """options: as `_overlays_and_ids` has them."""
    from .workflow import run_workflow  # here: it takes seconds to import

    overlays, ids = _overlays_and_ids(**options)
    run_workflow(workflow, overlays, run_id=run_id, **ids)


def _parsed(key: str, *, change: Any = None, **options: Any) -> Any:
    """What `inference.yaml` has under an id with these options. change: of the run, which alters no id."""
    from .workflow import config_files, load_config

    overlays, ids = _overlays_and_ids(**options)
    return load_config(config_files("inference", overlays), ids, logs=False).get_parsed_content(key)


def _overlays_and_ids(
    *, task: str = SUPER_RESOLUTION, contrast: str | None = None, overlays: Sequence[str] = (), settings: Sequence[str] = (),
    **options: Any,
) -> tuple[list[str | Path], dict[str, Any]]:  # fmt: skip
    """task: NAME of configs/task_NAME.yaml, or a file; contrast: condition and target of one of a single contrast; overlays:
    further config files; settings: KEY=VALUE, ids of the configs, and so are options.
    Raises BadInput for a contrast of a task that makes one of another, or of several.
    """
    from .workflow import task_config

    if contrast is not None:
        conditions = asked_of([task], contrast)[0]
        options = {"conditions": conditions, "target": conditions[0], **options}
    return [task_config(task), *overlays], {**options, **dict(map(setting, settings))}


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as YAML reads it. Raises BadInput for anything else, and for code."""
    key, separator, value = text.partition("=")
    if not (key and separator) or value.lstrip("'\" ").startswith(("$", "%")):
        raise BadInput(f"--set {text}: is not KEY=VALUE with a plain value; docs/configs.md lists the keys")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {text}: the value cannot be read; quote it, as in --set \"planes=['coronal']\"") from error
