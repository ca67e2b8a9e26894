# SPDX-License-Identifier: Apache-2.0
"""What more network evaluations buy: `evaluate.yaml` once for every ensemble, sampler and number of steps."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.bundle import ConfigParser, run

from .. import bundle_root, diffusion
from ..errors import BadInput
from ..running.case_evaluator import named
from ..running.preflight import preflight

STEPS = (1, 2, 4, 6, 10, 20, 50)
ENSEMBLES = {"fusion": True, "average": False}  # name -> `fusion` of the config
ONE_STEP = "one_step"  # what every sampler and every spacing is with a single step
SAMPLERS = tuple(name for name in diffusion.SAMPLERS if name != ONE_STEP)
DASHES = {"fusion": "-", "average": "--"}
Row = dict[str, Any]


class Experiment(NamedTuple):
    """One run of `evaluate.yaml`."""

    ensemble: str
    sampler: str
    spacing: str
    steps: int

    @property
    def folder(self) -> str:
        """As `fusion_ddim_time_4`."""
        return "_".join(map(str, self))


class Column(NamedTuple):
    """A column of the printed table: heading, key of a row, format."""

    title: str
    key: str
    form: str


COLUMNS = (
    Column("ensemble", "ensemble", ""),
    Column("sampler", "sampler", ""),
    Column("NFE", "nfe", "d"),
    Column("PSNR", "psnr", ".2f"),
    Column("SSIM", "ssim", ".4f"),
    Column("MMD", "mmd_value", ".2f"),
    Column("MMD bias", "mmd_bias", ".2f"),
    Column("FID", "fid", ".1f"),
    Column("seconds a volume", "seconds", ".1f"),
    Column("n", "n", "d"),
)
PANELS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "mmd_bias": "MMD bias", "fid": "FID"}


def nfe_curve(
    dataset_dir: str, output: str, *, steps: Sequence[int] = STEPS, samplers: Sequence[str] = SAMPLERS,
    ensembles: Sequence[str] = tuple(ENSEMBLES), spacing: str = "time", max_cases: int | None = None,
    overlays: Sequence[str] = (),
) -> None:  # fmt: skip
    """Measure quality against network evaluations; print a Markdown table and leave `nfe_curve.json` and `.png`.

    dataset_dir, max_cases: the cases, as of `evaluate.yaml`; output: folder, where every run has its own and one that is
    complete is not repeated; steps: numbers of sampler steps; spacing: where they lie, "time" or "log_snr"; overlays: config
    files given after `evaluate.yaml`, for another task, size or weights.
    Raises BadInput for names that do not exist, for results in `output` that were made from other cases, overlays or
    weights, and when a case fails, because means over different cases do not compare.
    """
    base, folder = Path(bundle_root()) / "configs" / "evaluate.yaml", Path(output).expanduser()
    for file in overlays:
        if not Path(file).is_file():
            raise BadInput(f"{file}: there is no such overlay; give a path such as configs/size_small.yaml")
    table = list(experiments(steps, samplers, ensembles, spacing))
    files = [str(base), *map(str, overlays)]
    preflight(["--config_file", str(files)], output_dir=output)
    asked = {"dataset_dir": str(Path(dataset_dir).expanduser().resolve()), "max_cases": max_cases, **_origin(files)}
    rows = [_row(experiment, _results(experiment, folder / experiment.folder, files, asked)) for experiment in table]
    (folder / "nfe_curve.json").write_text(json.dumps(rows, indent=2))
    curve_figure(rows).savefig(folder / "nfe_curve.png", dpi=130)
    print(markdown(rows))


def experiments(steps: Sequence[int], samplers: Sequence[str], ensembles: Sequence[str], spacing: str) -> Iterator[Experiment]:
    """The table of runs, cheap ones first; a single step once an ensemble. Raises BadInput for unknown names."""
    for names, known, kind in ((samplers, SAMPLERS, "sampler"), (ensembles, ENSEMBLES, "ensemble")):
        if unknown := [name for name in names if name not in known]:
            raise BadInput(f"no {kind} '{unknown[0]}'; choose from {', '.join(known)}")
    for count in sorted(set(steps)):
        for ensemble in ensembles:
            if count == 1:
                yield Experiment(ensemble, ONE_STEP, "time", 1)
            else:
                yield from (Experiment(ensemble, sampler, spacing, count) for sampler in samplers)


def _origin(files: Sequence[str]) -> dict[str, Any]:
    """The overlays and, by checksum, what they and the weights hold: results of others are not to be taken for these."""
    parser = ConfigParser()
    parser.read_config(files)
    weights = Path(parser.get_parsed_content("ckpt_path"))
    if not weights.is_file():
        raise BadInput(f"{weights}: no such weights file; train them first or give another ckpt_path in an overlay")
    checksum = hashlib.sha256()
    for file in (*map(Path, files[1:]), weights):
        checksum.update(file.read_bytes())
    return {"overlays": [Path(file).name for file in files[1:]], "weights_and_overlays": checksum.hexdigest()}


def _results(experiment: Experiment, folder: Path, files: Sequence[str], asked: Mapping[str, Any]) -> Row:
    """`results.json` of an experiment, which is run unless it is complete."""
    path = folder / "results.json"
    if not _complete(path, asked):
        _evaluate(experiment, folder, files, asked)
    content: Row = json.loads(path.read_text())
    if failures := content["failures"]:
        case, line = next(iter(failures.items()))
        fact = f"{len(failures)} of {content['n'] + len(failures)} cases failed, the first with: "
        raise BadInput(f"{folder}: {fact}{named(case, line)}; mend or remove them, then run this again")
    return content


def _evaluate(experiment: Experiment, folder: Path, files: Sequence[str], asked: Mapping[str, Any]) -> None:
    settings: dict[str, Any] = {
        "handlers#0#system#curve": dict(asked),
        "dataset_dir": asked["dataset_dir"],
        "output_dir": str(folder),
        "max_cases": asked["max_cases"],
        "fusion": ENSEMBLES[experiment.ensemble],
        "sampler#_target_": f"scripts.diffusion.sample_{experiment.sampler}",
        "schedule#spacing": experiment.spacing,
        "steps": experiment.steps,
    }
    with suppress(SystemExit):  # after the file was written: some case failed, and the file says which
        run(run_id="evaluating", config_file=files, **settings)


def _complete(path: Path, asked: Mapping[str, Any]) -> bool:
    """Whether the file answers what is asked. Raises BadInput when it answers something else: it is not overwritten."""
    if not path.is_file():
        return False
    content = json.loads(path.read_text())
    made = content["system"].get("curve", {})
    for key, value in asked.items():
        if made.get(key) != value:
            raise BadInput(f"{path}: made with {key} {made.get(key)}, not {value}; give --output another folder")
    return not content["failures"]


def _row(experiment: Experiment, results: Mapping[str, Any]) -> Row:
    mmd = {f"mmd_{key}": results["mmd"][key] for key in ("value", "floor", "bias")}
    pooled = {**mmd, "fid": results.get("fid", {}).get("value"), "n": results["n"]}
    return {**experiment._asdict(), "nfe": results["system"]["nfe"], **results["mean"], **pooled}


def markdown(rows: Sequence[Row]) -> str:
    """A table with a line for every run; a number that does not exist (the MMD's bias from one case) is left empty."""
    lines = [[column.title for column in COLUMNS], ["---"] * len(COLUMNS)]
    for row in rows:
        values = ((row[column.key], column.form) for column in COLUMNS)
        lines.append(["" if value is None else format(value, form) for value, form in values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def curve_figure(rows: Sequence[Row]) -> Figure:
    """PSNR, SSIM, MMD bias and FID side by side against NFE; a colour for every sampler, a dash for every ensemble.

    The run with one step belongs to every sampler's line.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
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


def _panel(axes: Axes, rows: Sequence[Row], key: str) -> None:
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
