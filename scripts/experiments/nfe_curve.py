# SPDX-License-Identifier: Apache-2.0
"""What more network evaluations buy: `evaluate.yaml` once for every ensemble, sampler and number of steps."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import diffusion
from ..errors import BadInput, named
from ..files import read_json, whole, write_json
from ..report.nfe_figure import ONE_STEP, curve_figure
from ..running.workflow import config_files, load_config
from ..tables.cells import cells
from ..tables.columns import FID, MMD, MMD_BIAS, NAME, NFE, PSNR, SECONDS, SSIM, N
from ..tables.formats import Row, Table, markdown
from ..tables.results import load_results
from .study import Stage, Study

STEPS = (1, 2, 4, 6, 10, 20, 50)
ENSEMBLES = {"fusion": True, "average": False}  # name -> `fusion` of the config
SAMPLERS = tuple(name for name in diffusion.SAMPLERS if name != ONE_STEP)
COLUMNS = (NAME, NFE, PSNR, SSIM, MMD, MMD_BIAS, FID, SECONDS, N)


class Experiment(NamedTuple):
    """One run of `evaluate.yaml`."""

    ensemble: str
    sampler: str
    spacing: str
    steps: int

    def stage(self, overlays: Sequence[str], options: Mapping[str, Any], weights: Mapping[str, Path]) -> Stage:
        """In a folder such as `fusion_ddim_time_4`."""
        sampler = {"sampler#_target_": f"scripts.diffusion.sample_{self.sampler}", "schedule#spacing": self.spacing}
        alone = {"specialists": None, "orientations": 1}  # these weights, once a step
        own = {"fusion": ENSEMBLES[self.ensemble], "steps": self.steps, **alone, **sampler}
        name = {"system#name": f"{self.ensemble}, {self.sampler}, {self.spacing}, {self.steps}"}
        return Stage("_".join(map(str, self)), "evaluate", overlays, {**options, **own}, weights, lambda: name)


def nfe_curve(
    dataset_dir: str, output: str, *, steps: Sequence[int] = STEPS, samplers: Sequence[str] = SAMPLERS,
    ensembles: Sequence[str] = tuple(ENSEMBLES), spacing: str = "time", max_cases: int | None = None,
    overlays: Sequence[str] = (),
) -> None:  # fmt: skip
    """Measure quality against network evaluations; print a Markdown table and leave `nfe_curve.json` and `.png`.

    dataset_dir, max_cases: the cases, as of `evaluate.yaml`; output: folder, where every run has its own and one that is
    complete is not repeated; steps: numbers of sampler steps; spacing: where they lie, "time" or "log_snr"; overlays: config
    files given after `evaluate.yaml`, for another task, size or weights.
    Raises BadInput for names that do not exist, for results in `output` that were made from other cases, settings or
    weights, and when a case fails, because means over different cases do not compare.
    """
    table, study = list(experiments(steps, samplers, ensembles, spacing)), Study(output, dataset_dir)
    weights = Path(load_config(config_files("evaluate", overlays)).get_parsed_content("ckpt_path"))
    options = {} if max_cases is None else {"max_cases": max_cases}
    stages = [experiment.stage(overlays, options, {"ckpt_path": weights}) for experiment in table]
    study.check(stages)
    results = load_results([str(_whole(study.run(stage))) for stage in stages])
    rows = [_row(experiment, result.content) for experiment, result in zip(table, results, strict=True)]
    write_json(study.folder / "nfe_curve.json", rows)
    with whole(study.folder / "nfe_curve.png") as part:
        curve_figure(rows).savefig(part, dpi=130)
    lines = [Row(result.task.title, cells(result, COLUMNS)) for result in results]
    print(markdown(Table("Quality against network evaluations per plane (NFE)", COLUMNS, lines)))


def experiments(steps: Sequence[int], samplers: Sequence[str], ensembles: Sequence[str], spacing: str) -> Iterator[Experiment]:
    """The table of runs, each once, cheap ones first; a single step once an ensemble. Raises BadInput for unknown names."""
    if fewer := [count for count in steps if count < 1]:
        raise BadInput(f"--steps {fewer[0]}: a sampler needs at least 1 step")
    for names, known, kind in ((samplers, SAMPLERS, "sampler"), (ensembles, ENSEMBLES, "ensemble")):
        if unknown := [name for name in names if name not in known]:
            raise BadInput(f"no {kind} '{unknown[0]}'; choose from {', '.join(known)}")
    for count in sorted(set(steps)):
        for ensemble in dict.fromkeys(ensembles):
            if count == 1:
                yield Experiment(ensemble, ONE_STEP, "time", 1)
            else:
                yield from (Experiment(ensemble, sampler, spacing, count) for sampler in dict.fromkeys(samplers))


def _whole(path: Path) -> Path:
    """The results of a run in which no case failed."""
    content = read_json(path)
    if failures := content["failures"]:
        fact = f"{len(failures)} of {content['n'] + len(failures)} cases failed, the first with: "
        raise BadInput(f"{path.parent}: {fact}{named(*next(iter(failures.items())))}; mend or remove them, then run this again")
    return path


def _row(experiment: Experiment, results: Mapping[str, Any]) -> dict[str, Any]:
    mmd = {f"mmd_{key}": results["mmd"][key] for key in ("value", "floor", "bias")}
    pooled = {**mmd, "fid": results.get("fid", {}).get("value"), "n": results["n"]}
    return {**experiment._asdict(), "nfe": results["system"]["nfe"], **results["mean"], **pooled}
