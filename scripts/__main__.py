# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""The command line: `score-fusion --help`; imports only the standard library before a command runs."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .bundle import bundle_version, task_configs
from .errors import exit_code
from .logs import say, speak
from .models import known, with_weights
from .start import run, start
from .trust import asked_for

ABOUT = "Volume-to-volume MR translation by fused 2D diffusion models. Research use; synthetic images are not for diagnosis."


def arg(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """As `add_argument` takes it. Without a default: what is not given is left to the command's own."""
    return names, options


def _mapping(text: str) -> dict[str, Any]:
    """A JSON object. argparse tells of a ValueError in one line."""
    if not isinstance(content := json.loads(text), dict):
        raise ValueError(text)
    return content


def _spacing(text: str) -> str | float:
    """A number of mm, or a word. What is neither a number nor known is refused with the task."""
    return float(text) if text.replace(".", "", 1).isdigit() else text


class Command(NamedTuple):
    """A line of help, the function behind it as module:name, and its arguments, each named after one of its parameters."""

    about: str
    target: str
    arguments: Sequence[tuple[tuple[str, ...], dict[str, Any]]]


DATA = arg("dataset_dir", help="folder with cases (docs/your_data.md)")
SOURCE = arg("dataset_dir", help="file, folder or zip with NIfTI or DICOM (docs/your_data.md, docs/dicom.md)")
OUTPUT = arg("-o", "--output", required=True, metavar="OUT", help="folder to write to")
PICTURE = arg("--output", metavar="PNG", help="picture to write")
CASES = arg("--max-cases", type=int, metavar="N", help="the first so many (default: all)")
BLOCK = arg("--block", type=int, nargs=3, metavar="N", help="voxels averaged along each axis")
SIZE = arg("--size", metavar="NAME", help="network preset (default: compact)")
SPLIT = arg("--split", choices=["all", "train", "val"], help="default: val")
MASK = arg("--mask", metavar="NAME", help="a label map within which metrics are also taken")
SETTINGS = arg("--set", dest="settings", action="append", metavar="KEY=VALUE", help="any id of the configs; may be repeated")
CHOICE = (
    arg("--bids-filter", type=_mapping, metavar="JSON", help="""which of several scans, as '{"acq": "mprage", "run": 1}'"""),
    arg("--resample", action="store_true", help="bring conditions on other grids onto that of the first"),
    arg("--register", action="store_true", help="move them rigidly onto the first as well"),
)
OVERLAYS = arg("--overlays", nargs="+", metavar="FILE", help="further config files, by name or path (docs/configs.md)")
FORCE = arg(
    "--force", action="store_true", help="even what weights did not see or were measured to be worse at (docs/any_scan.md)"
)
TRUST = (
    arg("--trust", nargs="+", metavar="FILE", help="weights of others, and configs that hold code (SECURITY.md)"),
    arg("--sha256", nargs="+", metavar="SUM", help="of weights of others, as they published it"),
)
TELLING = (
    arg("--quiet", dest="verbosity", action="store_const", const="quiet", help="warnings and errors alone"),
    arg("--verbose", dest="verbosity", action="store_const", const="verbose", help="tracebacks of what is refused, too"),
    arg("--json-log", dest="json_lines", action="store_true", help="a line of JSON for each record of the log"),
)
CONFIG = (
    arg("--task", metavar="NAME", help="of configs/task_NAME.yaml, or a file (default: super_resolution; of restore any)"),
    OVERLAYS,
    arg("--keep-ids", action="store_true", help="name cases from DICOM by patient ID and date (docs/dicom.md#privacy)"),
    *CHOICE,
    SETTINGS,
    *TRUST,
    *TELLING,
)
SCAN = (
    arg("--contrast", metavar="NAME", help="which is restored: t1, t2, flair, ... (default: the task's)"),
    arg("--spacing", type=_spacing, metavar="MM", help="voxels of the result, task any: mm, or isotropic (the default)"),
    arg("--thickness", type=float, metavar="MM", help="of the scan's slices, task any, in place of what its file says"),
)
RUN = (
    arg("--steps", type=int, metavar="N", help="network evaluations (default: 1)"),
    arg("--samples", type=int, metavar="N", help="runs with different noise; 2 and more give an uncertainty (default: 1)"),
    arg("--seed", type=int, metavar="N", help="of the first sample (default: 0)"),
    arg("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)"),
    arg("--weights", dest="ckpt_path", metavar="FILE", help="default: those that ship for the task"),
    arg("--model", metavar="NAME", help="weights by name, and their task: score-fusion models lists them"),
    *SCAN,
    arg("--adapt", type=float, metavar="MIN", help="minutes in which the planes learn from the scan itself first, task any"),
    arg("--backend", choices=["auto", "torch", "openvino"], help="what computes on a CPU (docs/configs.md; default: auto)"),
    FORCE,
    *CONFIG,
)
GROUPS = {
    "Use": {
        "restore": Command(
            "translate a file, a folder or a zip", "running.commands:restore",
            (arg("source", metavar="IN", also=("-i", "--input"), help=SOURCE[1]["help"]), OUTPUT,
            arg("--cluster", metavar="WHERE", help="local, slurm, or a Dask scheduler's address (docs/scaling.md)"),
            arg("--workers", type=int, metavar="N", help="processes of a local cluster or of slurm (default: one a GPU, or 1)"),
            *RUN)),
        "combine": Command(
            "one volume of several scans of one contrast in different planes", "running.combine:combine",
            (arg("sources", nargs="+", metavar="SCAN", help="files or DICOM folders, two and more; on the first one's grid"),
            OUTPUT, *RUN)),
        "doctor": Command(
            "say what a folder holds, what would be used and what is wrong", "data.doctor:doctor",
            (SOURCE, arg("--task", nargs="+", metavar="NAME", help="a task, or conditions (default: any)"),
            arg("--rule", dest="rules", nargs=2, action="append", metavar=("NAME", "REGEX"), help="as series_rules"),
            *SCAN, FORCE, *CHOICE)),
        "models": Command(
            "list weights by name: what for, what they saw, licence, sha256", "models:models",
            (arg("--json", dest="as_json", action="store_true", help="as a list in JSON"),)),
        "models add": Command(
            "keep weights of others under a name, checked by their sha256", "models:add",
            (arg("source", metavar="FILE_OR_URL", help="a file, or an address that begins with https:// or http://"),
            arg("--sha256", dest="checksum", required=True, metavar="SUM", help="as the author published it"),
            arg("--name", metavar="NAME", help="default: the file's"),
            arg("--task", metavar="NAME", help="that they were trained for (default: super_resolution)"))),
        "models remove": Command(
            "remove weights that were added, by name", "models:remove",
            (arg("name", metavar="NAME", help="as score-fusion models lists it"),)),
        "cite": Command("print how to cite the method and this software, as BibTeX", "citation:cite", ()),
        "report": Command(
            "a page for every case of a run and one for all, to look at offline", "report:report",
            (arg("run_dir", help="folder of a restore or evaluate"),
            arg("--dataset-dir", "--dataset_dir", help="where the files lie that the run read, if they moved"),
            arg("--truth", metavar="DIR", dest="truth_dir", help="folder with the targets, after restore"),
            arg("--datalist", help="as the run had it"),
            arg("--conditions", nargs="+", metavar="NAME", help="where the run left no record"),
            arg("--target", metavar="NAME", help="likewise"), BLOCK, CASES)),
        "demo": Command(
            "restore a low-resolution copy of the MNI152 brain", "demos.demo:demo",
            (arg("--output", default="demo", help="folder for volumes and picture (default: demo)"),
            arg("--brain", metavar="FILE", help="a fine T1w volume of a brain, in place of MNI152"),
            arg("--head", metavar="FILE", help="a fine volume of a whole head, of which thick slices are restored, too"))),
        "demo_dicom": Command(
            "from a DICOM study, or one made of the MNI152 brain, to a derived series", "demos.demo_dicom:demo_dicom",
            (arg("--study", default="study", help="DICOM folder with a T1; it may be missing"),
            arg("--output", default="demo/dicom", help="folder for the results (default: demo/dicom)"))),
    },
    "Measure": {
        "evaluate": Command(
            "restore simulated measurements of a split and measure the result", "running.commands:evaluate",
            (DATA, OUTPUT, SPLIT, arg("--predictions", metavar="DIR", help="measure what lies there instead of inferring"),
            MASK, CASES, *RUN)),
        "tables": Command(
            "results of evaluations side by side, with intervals or paired tests", "tables:tables",
            (arg("results", nargs="+", metavar="RESULTS", help="results.json files or folders that hold them"),
            arg("--table", type=int, metavar="N", help="as the paper's, 1 to 6 or 8; 2 is of downstream.json"),
            arg("--published", action="store_true", help="the paper's whole table, not only our systems' rows"),
            arg("--format", dest="form", choices=["markdown", "csv", "latex"], help="default: markdown"),
            arg("--output", help="file to write (default: print)"),
            arg("--place", metavar="TEXT", help="of a page of Markdown: write in place of the table below <!-- TEXT -->"),
            arg("--compare", action="store_true", help="tests between the systems of a task, not their means"))),
        "side_by_side": Command(
            "a picture of what several systems made of one case", "report.side_by_side:side_by_side",
            (arg("run_dirs", nargs="+", metavar="RUN", help="folders of evaluate on the same data"),
            arg("--case", help="default: the first that all of them have"), PICTURE)),
        "cine_table": Command(
            "loops by every method side by side: errors in space and time, and a picture of each",
            "experiments.cine_table:cine_table",
            (DATA, OUTPUT, arg("--task", metavar="NAME", help="default: cine_super_resolution"), SPLIT,
            arg("--weights", dest="ckpt_path", metavar="FILE", help="default: those that ship for the task"),
            arg("--planes-weights", metavar="FILE", help="a fusion of the planes alone"), *TRUST)),
        "floors": Command(
            "measure what a network must beat: interpolation, matched histograms, boosted trees", "experiments.floors:floors",
            (DATA, OUTPUT, arg("--task", metavar="NAME", help="as for restore"), SPLIT, MASK, CASES, SETTINGS, *TRUST)),
        "gate": Command(
            "whether results beat every floor, case by case; exit code 3 where they do not", "tables.gate:gate",
            (arg("results", metavar="RESULTS", help="results.json of an evaluation, or its folder"),
            arg("floors", metavar="FLOORS", help="folder that floors wrote, of the same cases"))),
        "benchmark": Command(
            "this machine's limit, the plain way and ours", "benchmarks.speed:speed",
            (SIZE, arg("--shape", type=int, nargs=3, metavar="N", help="voxels (default: 192 192 152)"),
            arg("--box", type=int, nargs=3, metavar="N", help="the head in them (default: 144 172 140)"),
            arg("--steps", type=int, metavar="N", help="of our sampler (default: 1)"),
            arg("--precision", choices=["auto", "float32"], help="default: bfloat16 where there is any"),
            arg("--json", dest="json_path", metavar="FILE", help="file to write the figures to"))),
        "training_speed": Command(
            "a step of the fusion's training, planes live and kept", "benchmarks.training:training_speed",
            (SIZE, arg("--precision", choices=["auto", "float32", "bfloat16"], help="default: bfloat16 where there is any"),
            arg("--steps", type=int, metavar="N", help="of each kind (default: 10)"),
            arg("--profile", action="store_true", help="print what a kept step spends its time on"))),
        "memory_curve": Command(
            "memory of one evaluation against voxels, measured and predicted", "benchmarks.memory:memory",
            (SIZE, arg("--sides", type=int, nargs="+", metavar="N", help="of cubes, in voxels"),
            arg("--rungs", type=int, nargs="+", metavar="N", help="of the memory ladder, 0 is the highest"),
            arg("--output", help="path of the .json and .png to write, without the ending"))),
    },
    "Train and compare": {
        "train": Command(
            "train a plane, or the fusion of planes that are there", "running.commands:train",
            (DATA, OUTPUT,
            arg("--plane", metavar="NAME", help="axial, coronal, sagittal, x-y, x-t, y-t, space-time (default: the fusion)"),
            arg("--planes", dest="plane_weights", metavar="FILE", help="{plane} in place of a plane's name"),
            arg("--device", metavar="NAME", help="default: a GPU where there is one"), *CONFIG)),
        "export": Command(
            "write a training's averaged weights as a plain float16 state dict", "networks.weights:export_weights",
            (arg("source", metavar="CHECKPOINT", help="latest.pt of a training"),
            arg("target", metavar="WEIGHTS", help="file to write, such as my_model.pt"),
            arg("--overwrite", action="store_true", help="replace a file that is there"),
            arg("--replace-shipped", action="store_true", help="even one that ships; for maintainers"), *TRUST)),
        "calibrate": Command(
            "find what 8-bit integers need to compute weights fast on CPUs", "experiments.calibration:calibrate",
            (DATA, arg("weights", help="file of weights, such as my_model.pt"),
            arg("--task", metavar="NAME", help="as for restore"),
            arg("--cases", type=int, metavar="N", help="of the train split, that ranges are taken of (default: 2)"),
            arg("--tolerance", type=float, metavar="DB", help="that may be lost on the val split (default: 0.05)"),
            OVERLAYS, SETTINGS, CASES, *TRUST)),
        "seen": Command(
            "note beside weights what they were trained on; inference doubts what is unlike it", "experiments.seen:seen",
            (DATA, arg("weights", help="file of weights, such as my_model.pt"),
            arg("--task", metavar="NAME", help="as for restore"),
            arg("--split", choices=["all", "train", "val"], help="default: train"), OVERLAYS, SETTINGS, *TRUST)),
        "interval": Command(
            "learn beside weights how wrong their results may be; restore then writes it", "experiments.intervals:intervals",
            (arg("weights", help="file of weights, such as my_model.pt"),
            arg("--of", dest="sources", nargs=2, action="append", required=True, metavar=("DATA", "CONTRAST"),
                help="folder with a train and a val split, and its contrast; may be repeated"),
            arg("--task", metavar="NAME", help="as the weights were trained for (default: super_resolution)"),
            arg("--cases", type=int, metavar="N", help="of each train split (default: 16)"), SETTINGS, *TRUST)),
        "training_curve": Command(
            "a picture of how loss and validation of trainings went", "report.training_curve:training_curve",
            (arg("runs", nargs="+", metavar="RUN", help="folders of trainings"), PICTURE)),
        "experiment": Command(
            "train, run and measure systems side by side; goes on where it stopped", "experiments.experiment:experiment",
            (arg("name", help="super_resolution, translation, both, ablations, ... (docs/systems.md)"), DATA, OUTPUT,
             arg("--systems", nargs="+", metavar="NAME", help="some of them (default: all)"),
            arg("--plane-steps", type=int, metavar="N", help="of every training in 2D, in fifties (default: 1500)"),
            arg("--volume-steps", type=int, metavar="N", help="of every training in 3D, in fifties (default: 1300)"),
            arg("--steps", type=int, nargs="+", metavar="N", help="of the sampler (default: 1)"),
            arg("--options", type=_mapping, metavar="JSON", help="ids of the configs (docs/systems.md)"), *TRUST)),
        "nfe_curve": Command(
            "quality against network evaluations", "experiments.nfe_curve:nfe_curve",
            (DATA, OUTPUT, arg("--steps", type=int, nargs="+", metavar="N", help="default: 1 2 4 6 10 20 50"),
            arg("--samplers", nargs="+", metavar="NAME", help="as ddim, heun (docs/configs.md)"),
            arg("--ensembles", nargs="+", metavar="NAME", help="default: fusion average"),
            arg("--spacing", choices=["time", "log_snr"], help="where the steps lie (default: time)"),
            arg("--overlays", nargs="+", metavar="FILE", help="config files after evaluate.yaml"), CASES, *TRUST)),
        "scans": Command(
            "list volumes of any contrast to train one model on (docs/any_scan.md)", "experiments.scans:scans",
            (arg("output", metavar="JSON", help="file to write"),
            arg("--of", dest="folders", nargs=4, action="append", required=True, metavar=("KIND", "DIR", "MODALITY", "TIMES"),
                help="volume, slices (sharp within alone) or labels; may be repeated"))),
        "loops": Command(
            "each slice of a cine as a volume (x, y, t), to train on and evaluate (docs/cine.md)", "data.cine.loops:loops",
            (arg("source", help="cine: 4D NIfTI, DICOM or video"), OUTPUT,
            arg("--train", type=int, nargs="+", metavar="N", help="slices, from 1, to train on"),
            arg("--val", type=int, nargs="+", metavar="N", help="slices to watch or measure"),
            arg("--variants", type=int, metavar="N", help="times that slices to train on are written in other ways, too"))),
        "sigma_data": Command(
            "measure the scale of a new task's residual", "experiments.sigma_data:sigma_data",
            (DATA, arg("--task", metavar="NAME", required=True, help="of configs/task_NAME.yaml, or a file"),
            arg("--split", choices=["all", "train", "val"], help="default: train"), CASES, *TRUST)),
    },
}  # fmt: skip
LEAN = {"restore", "demo", "demo_dicom"}  # for which MONAI is imported without what is optional to it
GREETING = (
    "restore",
    "combine",
    "evaluate",
    "train",
    "experiment",
    "nfe_curve",
    "demo",
    "demo_dicom",
    "report",
)  # what takes long
COMPLETIONS: dict[str, Callable[..., Iterable[str]]] = {  # names that a shell may offer, by argument
    "model": lambda **_: known(),
    "task": lambda **_: task_configs(),
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input is one line and exit code 1."""
    start(alone=arguments is None)
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        _complete(parser)
    options = vars(parser.parse_args(arguments))
    command = " ".join(filter(None, [options.pop("command"), options.pop("part", None)]))
    module, _, function = COMMANDS[command].target.partition(":")
    speak(options.pop("verbosity", ""), options.pop("json_lines", False))
    if command in GREETING:
        greet(command, options)
    if command in LEAN and arguments is None:  # in a process of its own
        from .running.lean import all_ours, import_monai

        if all_ours(**options):
            import_monai()
    trusted = [*options.pop("trust", []), *([options["output"]] if command == "experiment" else [])]  # where its trainings lie
    with asked_for(trusted, options.pop("sha256", [])):
        return exit_code(lambda: run(f".{module}", function, __package__, with_weights(options)))


def greet(command: str, options: Mapping[str, Any]) -> None:
    """What will be done, at once: PyTorch takes seconds to import."""
    given = next((options[key] for key in ("source", "sources", "dataset_dir", "run_dir", "study") if key in options), "")
    source = f" {given if isinstance(given, str) else ' '.join(given)}" if given else ""
    target = f" -> {options['output']}" if "output" in options else ""
    say(f"score-fusion {bundle_version()}: {command}{source}{target}")


def _parser() -> argparse.ArgumentParser:
    name = Path(sys.argv[0]).name
    prog = name if name.startswith("score-fusion") else f"python -m {__package__}"
    raw = argparse.RawDescriptionHelpFormatter
    listed = [f"{group}:\n" + "".join(f"  {name:16}{command.about}\n" for name, command in commands.items())
              for group, commands in GROUPS.items()]  # fmt: skip
    parser = argparse.ArgumentParser(prog=prog, description=ABOUT, epilog="\n".join(listed), formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"score-fusion {bundle_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command", help="one of those below")
    parsers: dict[str, argparse.ArgumentParser] = {}
    among = {"": commands}  # by the words above
    for name, command in COMMANDS.items():
        above, _, last = name.rpartition(" ")
        if above not in among:
            parts = [other.rpartition(" ")[2] for other in COMMANDS if other.startswith(f"{above} ")]
            among[above] = parsers[above].add_subparsers(metavar=f"[{'|'.join(parts)}]", dest="part", help="see its --help")
        parsers[name] = among[above].add_parser(last, description=command.about, argument_default=argparse.SUPPRESS)
        for names, given in command.arguments:
            add_argument(parsers[name], *names, **given)
    return parser


def add_argument(parser: argparse.ArgumentParser, *names: str, also: Sequence[str] = (), **given: Any) -> argparse.Action:
    """As argparse has it. also: options that may be given in place of a positional argument; one of both is required."""
    if not also:
        action = parser.add_argument(*names, **given)
    else:
        either = parser.add_mutually_exclusive_group(required=True)
        action = either.add_argument(*names, nargs="?", **given)
        either.add_argument(*also, dest=names[0], metavar=given["metavar"], help="the same, by name")
    if action.dest in COMPLETIONS:
        action.completer = COMPLETIONS[action.dest]  # type: ignore[attr-defined]  # where argcomplete looks
    return action


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end, if argcomplete is installed."""
    with suppress(ImportError):
        from argcomplete import autocomplete

        autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
