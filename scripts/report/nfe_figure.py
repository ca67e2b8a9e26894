# SPDX-License-Identifier: Apache-2.0
"""The picture of `python -m scripts nfe_curve`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ONE_STEP = "one_step"  # what every sampler and every spacing is with a single step
DASHES = {"fusion": "-", "average": "--"}
PANELS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "mmd_bias": "MMD bias", "fid": "FID"}


def curve_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """PSNR, SSIM, MMD bias and FID side by side against NFE; a colour for every sampler, a dash for every ensemble.

    The run with one step belongs to every sampler's line.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for axes, (key, title) in zip(panels, PANELS.items(), strict=True):
        _panel(axes, rows, key)
        axes.set(title=title, xlabel="NFE (network evaluations per plane)")
    lines, labels = panels[0].get_legend_handles_labels()
    columns = len(lines) // len({row["ensemble"] for row in rows})  # one for every sampler
    figure.legend(lines, labels, loc="outside lower center", ncols=columns, frameon=False)
    spacings = {row["spacing"] for row in rows if row["sampler"] != ONE_STEP} or {"time"}
    figure.suptitle(f"{rows[0]['n']} cases, steps even in {' and '.join(sorted(spacings))}", fontsize=10)
    return figure


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    samplers = list(dict.fromkeys(row["sampler"] for row in rows if row["sampler"] != ONE_STEP)) or [ONE_STEP]
    for index, sampler in enumerate(samplers):
        for ensemble in dict.fromkeys(row["ensemble"] for row in rows):
            line = [row for row in rows if row["ensemble"] == ensemble and row["sampler"] in (sampler, ONE_STEP)]
            values = np.array([[row["nfe"], row[key]] for row in line], dtype=float)  # None becomes NaN: a gap
            style: dict[str, Any] = {"color": f"C{index}", "linestyle": DASHES[ensemble], "marker": "o", "markersize": 4}
            axes.plot(values[:, 0], values[:, 1], label=f"{ensemble}, {sampler}", **style)
    ticks = sorted({row["nfe"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
