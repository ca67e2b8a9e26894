# SPDX-License-Identifier: Apache-2.0
"""A thin command line: `python -m scripts --help`; imports only the standard library before a command runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .errors import exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input is one line and exit code 1."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    return exit_code(lambda: command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="what a folder holds, what would be used and what is wrong; reads headers only")
    doctor.add_argument("dataset_dir", help="folder or zip with NIfTI or DICOM files (docs/your_data.md, docs/dicom.md)")
    doctor.add_argument("--task", nargs="+", default=["t1"], metavar="NAME", help="conditions (default: t1)")
    doctor.add_argument("--rule", nargs=2, action="append", default=[], metavar=("NAME", "REGEX"), help="as series_rules")
    doctor.set_defaults(command=_doctor)
    demo = commands.add_parser("demo", help="restore a low-resolution copy of the MNI152 brain with the shipped weights")
    demo.add_argument("--output", default="demo", help="folder for the volumes and the picture (default: demo)")
    demo.add_argument("--samples", type=int, default=3, help="runs with different noise, at least 2 (default: 3)")
    demo.set_defaults(command=_demo)
    clinic = commands.add_parser("demo_dicom", help="from a DICOM study, or one made of the MNI152 brain, to a derived series")
    clinic.add_argument("--study", default="study", help="DICOM folder with a T1 and a T1 post; it may be missing")
    clinic.add_argument("--output", default="demo/dicom", help="folder for the results (default: demo/dicom)")
    clinic.set_defaults(command=_demo_dicom)
    export = commands.add_parser("export", help="write a training's averaged weights as a plain float16 state dict")
    export.add_argument("checkpoint", help="latest.pt of a training")
    export.add_argument("weights", help="file to write, e.g. models/model.pt")
    export.set_defaults(command=_export)
    floors = commands.add_parser("floors", help="PSNR and SSIM of classical interpolation on a split")
    floors.add_argument("dataset_dir", help="folder with cases (docs/your_data.md)")
    floors.add_argument("--modality", default="t1", help="default: t1")
    floors.add_argument("--block", type=int, nargs=3, default=[4, 4, 4], help="voxels averaged per axis (default: 4 4 4)")
    floors.add_argument("--split", default="val", choices=["all", "train", "val"], help="default: val")
    floors.add_argument("--max-cases", type=int, help="the first so many (default: all)")
    floors.set_defaults(command=_floors)
    curve = commands.add_parser("nfe_curve", help="PSNR, SSIM and MMD of evaluate.yaml against network evaluations")
    curve.add_argument("dataset_dir", help="folder with cases (docs/your_data.md)")
    curve.add_argument("--output", required=True, help="folder for every run and the curve; complete runs are kept")
    curve.add_argument("--steps", type=int, nargs="+", metavar="N", help="default: 1 2 4 6 10 20 50")
    curve.add_argument("--max-cases", type=int, help="the first so many (default: all)")
    curve.add_argument("--samplers", nargs="+", metavar="NAME", help="as ddim heun (default: all)")
    curve.add_argument("--ensembles", nargs="+", metavar="NAME", help="default: fusion average")
    curve.add_argument("--spacing", choices=["time", "log_snr"], help="where the steps lie (default: time)")
    curve.add_argument("--overlays", nargs="+", metavar="FILE", help="config files after evaluate.yaml")
    curve.set_defaults(command=_nfe_curve)
    _add_comparisons(commands)
    bench = commands.add_parser("benchmark", help="this machine's limit, the plain way and ours")
    bench.add_argument("--size", default="compact", help="network preset (default: compact)")
    bench.add_argument("--shape", type=int, nargs=3, default=[192, 192, 152], help="voxels (default: 192 192 152)")
    bench.add_argument("--box", type=int, nargs=3, default=[144, 172, 140], help="the head in them (default: 144 172 140)")
    bench.add_argument("--steps", type=int, default=1, help="of our sampler (default: 1)")
    bench.add_argument("--precision", choices=["auto", "float32"], default="auto", help="default: bfloat16 where there is any")
    bench.add_argument("--json", help="file to write the figures to")
    bench.set_defaults(command=_benchmark)
    memory = commands.add_parser("memory_curve", help="memory of one evaluation against voxels, measured and predicted")
    memory.add_argument("--size", default="compact", help="network preset (default: compact)")
    memory.add_argument("--sides", type=int, nargs="+", default=[96, 128, 160, 192, 256], help="of cubes, in voxels")
    memory.add_argument("--rungs", type=int, nargs="+", default=[0], help="of the memory ladder, 0 is the highest (default: 0)")
    memory.add_argument("--output", help="path of the .json and .png to write, without the ending")
    memory.set_defaults(command=_memory_curve)
    pages = commands.add_parser("report", help="a page for every case of a run and one for all, to look at offline")
    pages.add_argument("run_dir", help="output_dir of inference.yaml or evaluate.yaml")
    pages.add_argument("--dataset-dir", "--dataset_dir", help="where the files lie that the run read, if they have moved")
    pages.add_argument("--truth", metavar="DIR", dest="truth_dir", help="folder with the targets, after inference.yaml")
    pages.add_argument("--datalist", help="as the run had it")
    pages.add_argument("--conditions", nargs="+", metavar="NAME", help="default: of results.json, else t1")
    pages.add_argument("--target", metavar="NAME", help="default: of results.json, else the first condition")
    pages.add_argument("--block", type=int, nargs=3, help="default: of results.json, else 4 4 4; 1 1 1 for translation")
    pages.add_argument("--max-cases", type=int, help="the first so many (default: all)")
    pages.set_defaults(command=_report)
    return parser


def _add_comparisons(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that set systems side by side."""
    compared = commands.add_parser("experiment", help="train, run and measure systems side by side; goes on where it stopped")
    compared.add_argument("name", help="super_resolution, thick_slice, translation, both, ablations, ... (docs/systems.md)")
    compared.add_argument("dataset_dir", help="folder with cases (docs/your_data.md)")
    compared.add_argument("--output", required=True, help="folder for trainings, results and tables")
    compared.add_argument("--systems", nargs="+", metavar="NAME", help="some of them (default: all)")
    compared.add_argument("--plane-steps", type=int, default=1500, help="of every training in 2D (default: 1500)")
    compared.add_argument("--volume-steps", type=int, default=1300, help="of every training in 3D (default: 1300)")
    compared.add_argument("--steps", type=int, nargs="+", default=[1], metavar="N", help="of the sampler (default: 1)")
    compared.add_argument("--options", type=_mapping, default={}, metavar="JSON", help="keys of the configs (docs/systems.md)")
    compared.set_defaults(command=_experiment)
    tables = commands.add_parser("tables", help="results of evaluations side by side, with intervals or paired tests")
    tables.add_argument("results", nargs="+", metavar="RESULTS", help="results.json files or folders that hold them")
    tables.add_argument("--table", type=int, metavar="N", help="as the paper's, 1 to 6 or 8; 2 is made of downstream.json")
    tables.add_argument("--published", action="store_true", help="the paper's whole table, not only the rows of our systems")
    tables.add_argument("--format", default="markdown", choices=["markdown", "csv", "latex"], help="default: markdown")
    tables.add_argument("--output", help="file to write (default: print)")
    tables.add_argument("--compare", action="store_true", help="tests between the systems of a task, instead of their means")
    tables.set_defaults(command=_tables)
    sides = commands.add_parser("side_by_side", help="a picture of what several systems made of one case")
    sides.add_argument("run_dirs", nargs="+", metavar="RUN", help="output folders of evaluate.yaml on the same data")
    sides.add_argument("--case", help="default: the first that all of them have")
    sides.add_argument("--output", default="side_by_side.png", help="default: side_by_side.png")
    sides.set_defaults(command=_side_by_side)
    trained = commands.add_parser("training_curve", help="a picture of how loss and validation of trainings went")
    trained.add_argument("runs", nargs="+", metavar="RUN", help="folders of trainings (ckpt_dir)")
    trained.add_argument("--output", default="training_curve.png", help="default: training_curve.png")
    trained.set_defaults(command=_training_curve)


def _mapping(text: str) -> dict[str, Any]:
    """A JSON object. argparse tells of a ValueError in one line."""
    if not isinstance(content := json.loads(text), dict):
        raise ValueError(text)
    return content


def _doctor(options: argparse.Namespace) -> None:
    from .data.doctor import doctor

    doctor(options.dataset_dir, options.task, dict(options.rule))


def _floors(options: argparse.Namespace) -> None:
    from .experiments.floors import floors

    given = {"modality": options.modality, "block": options.block, "split": options.split}
    floors(options.dataset_dir, **given, max_cases=options.max_cases)


def _nfe_curve(options: argparse.Namespace) -> None:
    from .experiments.nfe_curve import nfe_curve

    given = {key: value for key, value in vars(options).items() if key != "command" and value is not None}
    nfe_curve(**given)


def _experiment(options: argparse.Namespace) -> None:
    from .experiments.run import experiment
    from .running.preflight import preflight

    preflight([], output_dir=options.output)
    given = {key: getattr(options, key) for key in ("systems", "plane_steps", "volume_steps", "steps")}
    experiment(options.name, options.dataset_dir, options.output, **given, options=options.options)


def _tables(options: argparse.Namespace) -> None:
    from .tables import tables

    given = {key: getattr(options, key) for key in ("output", "compare", "table", "published")}
    tables(options.results, form=options.format, **given)


def _side_by_side(options: argparse.Namespace) -> None:
    from .report.side_by_side import side_by_side

    side_by_side(options.run_dirs, options.output, case=options.case)


def _training_curve(options: argparse.Namespace) -> None:
    from .report.training_curve import training_curve

    training_curve(options.runs, options.output)


def _benchmark(options: argparse.Namespace) -> None:
    from .benchmarks.speed import speed

    given = {key: getattr(options, key) for key in ("box", "steps", "precision")}
    speed(options.size, options.shape, **given, json_path=options.json)


def _memory_curve(options: argparse.Namespace) -> None:
    from .benchmarks.memory import memory

    memory(options.size, options.sides, rungs=options.rungs, output=options.output)


def _report(options: argparse.Namespace) -> None:
    from .report import report

    given = {key: getattr(options, key) for key in ("dataset_dir", "truth_dir", "datalist", "max_cases")}
    report(options.run_dir, **given, task={key: getattr(options, key) for key in ("conditions", "target", "block")})


def _demo(options: argparse.Namespace) -> None:
    from .demos.demo import demo

    demo(options.output, samples=max(options.samples, 2))


def _demo_dicom(options: argparse.Namespace) -> None:
    from .demos.demo_dicom import demo_dicom

    demo_dicom(options.study, options.output)


def _export(options: argparse.Namespace) -> None:
    from .networks.weights import export_weights

    export_weights(options.checkpoint, options.weights)


if __name__ == "__main__":
    sys.exit(main())
