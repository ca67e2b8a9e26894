# SPDX-License-Identifier: Apache-2.0
"""Diagrams as SVG inside a page: their text is text, and what is black takes the page's colour."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .slices import VISIBLE, Look, Volume

COLORS = {"input": "#d98e32", "result": "#3b82c4", "truth": "#7d8590"}  # readable on light and dark
BINS = 120


def histogram(volumes: Mapping[str, Volume], styles: Mapping[str, Look]) -> str:
    """How often which intensity occurs in the input, the result and the truth, in voxels that are not background."""
    shown = {name: volume for name, volume in volumes.items() if name in COLORS}
    dark = VISIBLE * styles["result"].high
    voxels = {name: volume[volume > dark] for name, volume in shown.items()}
    top = max([float(np.quantile(values, 0.999)) for values in voxels.values() if values.size], default=1.0)
    figure = _figure(7.0, 2.6)
    axes = figure.subplots()
    for name, values in voxels.items():
        counts, edges = np.histogram(values, bins=BINS, range=(dark, top))
        axes.plot((edges[1:] + edges[:-1]) / 2, counts / 1000, label=name, color=COLORS[name], linewidth=1.6)
    axes.set(xlabel="intensity (the truth spans 0 to 1)" if "truth" in shown else "intensity", ylabel="thousand voxels")
    axes.set(xlim=(0, top), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _svg(figure, salt="histogram")


def box_plot(title: str, values: Sequence[float]) -> str:
    """The spread of one metric, a point for every case."""
    figure = _figure(2.6, 2.6)
    axes = figure.subplots()
    axes.boxplot(values, widths=0.5, showfliers=False, medianprops={"color": COLORS["result"], "linewidth": 2})
    spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(1 + spread, values, ".", color=COLORS["input"], markersize=6)
    axes.set_title(title.replace("_", " "), fontsize=10)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return _svg(figure, salt=title)


def calibration(predicted: Sequence[float], actual: Sequence[float]) -> str:
    """The error that an uncertainty promises against the error there is."""
    figure = _figure(4.2, 3.4)
    axes = figure.subplots()
    top = 1.08 * max(*predicted, *actual)
    axes.plot([0, top], [0, top], color=COLORS["truth"], linewidth=1)
    axes.plot(predicted, actual, "o-", color=COLORS["result"], markersize=4, linewidth=1.6)
    axes.set(xlabel="uncertainty (the truth spans 0 to 1)", ylabel="error, root mean square", xlim=(0, top), ylim=(0, top))
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, salt="calibration")


def risk_coverage(kept: Sequence[float], error: Sequence[float]) -> str:
    """The error of what is left when the most doubtful voxels are left out."""
    figure = _figure(4.2, 3.4)
    axes = figure.subplots()
    axes.plot([100 * share for share in kept], error, "o-", color=COLORS["result"], markersize=4, linewidth=1.6)
    axes.set(xlabel="voxels that are left (%)", ylabel="error, root mean square", xlim=(0, 104), ylim=(0, 1.08 * max(error)))
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure, salt="risk_coverage")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def _svg(figure: Figure, salt: str) -> str:
    """salt: makes the ids in a drawing differ from those of others on the page."""
    for axes in figure.axes:
        axes.set_facecolor("none")
    text = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]  # without the XML prologue, which names a file on the network
    drawing = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", drawing, count=5)
    return drawing.replace("xlink:href", "href").replace("#000000", "currentColor")
