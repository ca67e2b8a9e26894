# SPDX-License-Identifier: Apache-2.0
"""How memory grows with the volume: measured, beside what the memory ladder predicts."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ..errors import BadInput
from ..files import write_json
from ..inferers.ladder import RUNGS, standing_on
from ..inferers.memory import peak_memory_gb
from ..inferers.precision import autocast, has_bfloat16
from ..networks import ScoreFusion
from ..networks.footprint import predicted_gb
from ..networks.presets import size_named

Row = dict[str, Any]


def memory(
    size: str = "compact", sides: Sequence[int] = (96, 128, 160, 192, 256), *, rungs: Sequence[int] = (0,),
    output: str | None = None,
) -> list[Row]:  # fmt: skip
    """Print, and write to `output`.json and .png, the peak memory of one evaluation of cubes.

    sides: voxels a side; rungs: of the memory ladder, from 0, the highest. Each is measured in a process of its own. Raises
    BadInput, before the first is, for what is no side, rung or size.
    """
    size_named(size)
    if wrong := [side for side in sides if side < 1]:
        raise BadInput(f"--sides {wrong[0]}: a cube has at least 1 voxel a side")
    if unknown := [rung for rung in rungs if rung not in range(len(RUNGS))]:
        raise BadInput(f"--rungs {unknown[0]}: the ladder's rungs are 0 to {len(RUNGS) - 1}")
    rows = []
    print(f"{'side':>6}{'rung':>6}{'peak GB':>10}{'beside the start GB':>22}{'predicted GB':>14}{'seconds':>10}")
    context = multiprocessing.get_context("spawn")
    for rung in rungs:
        for side in sides:
            with ProcessPoolExecutor(1, mp_context=context) as fresh:  # the peak of a process never falls
                row = fresh.submit(measure, size, side, rung).result()
            rows.append(row)
            print(
                f"{side:6}{rung:6}{row['peak_gb']:10.2f}{row['used_gb']:22.2f}{row['predicted_gb']:14.2f}{row['seconds']:10.1f}"
            )
    if output:
        write_json(f"{output}.json", {"size": size, "rows": rows})
        _figure(size, rows, Path(f"{output}.png"))
    return rows


@torch.no_grad()
def measure(size: str, side: int, rung: int) -> Row:
    """Peak memory and seconds of one evaluation of a cube; `used_gb` leaves out what the process held before."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = ScoreFusion(size=size, features=True).to(device).eval()
    half, start = has_bfloat16(device), peak_memory_gb()
    began = time.perf_counter()
    x = torch.randn(1, 5, side, side, side, device=device)
    shape = (1, 1, side, side, side)
    with standing_on(RUNGS[rung], network, shape, device, half=half), autocast(device, half):
        network(x, x_t=x[:, :1], timesteps=torch.full((1,), 0.5, device=device))
    seconds, peak = time.perf_counter() - began, peak_memory_gb()
    predicted = predicted_gb(network, shape, *RUNGS[rung][:2], half=half)
    return {
        "side": side, "rung": rung, "peak_gb": peak, "used_gb": peak - start, "predicted_gb": predicted, "seconds": seconds,
    }  # fmt: skip


def _figure(size: str, rows: Sequence[Row], path: Path) -> None:
    """Measured memory (points) and predicted memory (lines) against voxels."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for rung in sorted({row["rung"] for row in rows}):
        chosen = [row for row in rows if row["rung"] == rung]
        voxels = [row["side"] ** 3 / 1e6 for row in chosen]
        (points,) = axes.plot(voxels, [row["used_gb"] for row in chosen], "o", label=f"measured: {RUNGS[rung]}")
        predicted = [row["predicted_gb"] for row in chosen]
        axes.plot(voxels, predicted, "-", color=points.get_color(), alpha=0.5, label="predicted")
    axes.set(xlabel="voxels (millions)", ylabel="memory of one evaluation (GB)", title=f"{size} networks", xlim=0, ylim=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
