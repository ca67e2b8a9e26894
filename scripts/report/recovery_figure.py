# SPDX-License-Identifier: Apache-2.0
"""Bars of Dice and recovery between their bounds, as in Figures 5 to 7 of Zhu et al. 2025."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..evaluation.downstream import DEGRADED, REAL
from ..evaluation.downstream_results import DOWNSTREAM
from ..files import read_json, whole

PICTURE = "downstream.png"
PERCENT = 100
MARGIN = 0.35  # of the axis, around what it shows
LETTERS = 13  # of a line below a bar


class RecoveryFigure:
    """Draws what `DownstreamResults` wrote into `output_dir` as `downstream.png`; a handler that follows it."""

    def __init__(self, output_dir: str | Path) -> None:
        self.folder = Path(output_dir).expanduser()

    def attach(self, engine: Engine) -> None:
        """Draw after the last case."""
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def draw(self, engine: Any = None) -> None:
        """The picture; none when no case was measured."""
        content = read_json(self.folder / DOWNSTREAM)
        if content["cases"]:
            with whole(self.folder / PICTURE) as part:
                part.write_bytes(recovery_figure(content))


def recovery_figure(results: Mapping[str, Any]) -> bytes:
    """A PNG from the content of `downstream.json`: a column a region; Dice above, recovery below, a bar a method.

    Dashed: with the degraded modality (lower) and with the real one (upper). Without a method the bounds alone are bars.
    """
    mean, methods = results["mean"], list(results["recovery"])
    regions = list(mean[REAL])
    rows = 2 if methods else 1
    width = max(2.4, 0.9 * max(len(methods), 2) + 1)
    figure = Figure(figsize=(width * len(regions) + 1.6, 2.7 * rows + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, len(regions), squeeze=False)
    for column, region in enumerate(regions):
        dice = {version: _percent(of_version[region]["dice"]) for version, of_version in mean.items()}
        bounds = [dice[DEGRADED], dice[REAL]]
        shown = methods or [DEGRADED, REAL]
        _bars(panels[0, column], shown, [dice[name] for name in shown], bounds)
        low, high = panels[0, column].get_ylim()
        panels[0, column].set_ylim(max(low, 0), min(high, PERCENT))
        panels[0, column].set_title(f"{region} ({mean[REAL][region]['dice_n']} of {results['n']} cases)", fontsize=10)
        if methods:
            shares = [_percent(results["recovery"][name][region]) for name in methods]
            _bars(panels[1, column], methods, shares, [0.0, 100.0])
    for row, label in zip(panels, ("Dice (%)", "Recovery (%)"), strict=False):
        row[0].set_ylabel(label)
    system = results["system"]
    bounds_told = f"upper dashes: real {system['replaced']}\nlower dashes: {system['degraded']}"
    figure.suptitle(bounds_told, fontsize=9, x=0.02, ha="left")
    content = io.BytesIO()
    figure.savefig(content, dpi=130)
    return content.getvalue()


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float | None], bounds: Sequence[float | None]) -> None:
    """One panel; a value stands below its bar, where no dash crosses it."""
    for index, value in enumerate(values):
        if value is not None:
            axes.bar(index, value, width=0.6, color=f"C{index}")
    known = [bound for bound in bounds if bound is not None]
    for bound in known:
        axes.axhline(bound, color="0.3", linestyle="--", linewidth=1)
    shown = [*known, *(value for value in values if value is not None)]
    if shown:
        span = max(shown) - min(shown) or 1.0
        axes.set_ylim(min(shown) - MARGIN * span, max(shown) + MARGIN * span)
    axes.set_xlim(-0.6, len(names) - 0.4)
    told = ["not defined" if value is None else f"{value:.1f}" for value in values]
    labels = [f"{textwrap.fill(name, LETTERS)}\n{value}" for name, value in zip(names, told, strict=True)]
    axes.set_xticks(range(len(names)), labels=labels, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _percent(value: float | None) -> float | None:
    return None if value is None else PERCENT * value
