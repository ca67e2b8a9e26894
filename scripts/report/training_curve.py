# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts training_curve`: how loss and validation went, from what trainings left for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..errors import BadInput
from ..networks.weights import read

POINTS = 40  # of a curve, each the mean of its share of the steps
Curve = tuple[list[int], list[float]]


def training_curve(runs: Sequence[str], output: str = "training_curve.png") -> None:
    """Draw the loss of several trainings against their steps, and the PSNR of their validations where there were any.

    runs: folders of trainings (`ckpt_dir`); output: a PNG. Raises BadInput for a folder without a TensorBoard log.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in runs:
        loss, psnr = _smooth(_scalars(run, "loss")), _scalars(run, "psnr")
        (line,) = left.plot(*loss, label=Path(run).name)
        epoch = read(Path(run, "latest.pt"))["settings"]["steps_per_epoch"]  # validations are counted in epochs
        right.plot([count * epoch for count in psnr[0]], psnr[1], "o-", color=line.get_color())
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    right.set(xlabel="step", ylabel="PSNR of the watched cases (dB)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(output).expanduser(), dpi=130)
    print(output)


def _scalars(run: str, tag: str) -> Curve:
    """Steps and values of a tag in all logs of a training, those of a resumed one joined."""
    if not (files := list(Path(run).expanduser().glob("events.out.tfevents.*"))):
        raise BadInput(f"{run}: holds no TensorBoard log; give the ckpt_dir of a training")
    events: list[Any] = []
    for file in files:
        log = EventAccumulator(str(file), size_guidance={"scalars": 0})
        log.Reload()
        events += log.Scalars(tag) if tag in log.Tags()["scalars"] else []
    # By when they were written: names of files end in a number, of which 10 comes before 9.
    values = {event.step: event.value for event in sorted(events, key=lambda event: event.wall_time)}
    return sorted(values), [values[step] for step in sorted(values)]


def _smooth(curve: Curve) -> Curve:
    steps, values = (np.array_split(np.asarray(part), min(POINTS, max(len(part), 1))) for part in curve)
    return [int(part[-1]) for part in steps if part.size], [float(part.mean()) for part in values if part.size]
