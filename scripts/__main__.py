# SPDX-License-Identifier: Apache-2.0
"""A thin command line: `python -m scripts --help`; imports only the standard library before a command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input is one line and exit code 1."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except Exception as error:
        from .errors import root_cause

        known = root_cause(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="restore a low-resolution copy of the MNI152 brain with the shipped weights")
    demo.add_argument("--output", default="demo", help="folder for the volumes and the picture (default: demo)")
    demo.add_argument("--samples", type=int, default=3, help="runs with different noise, at least 2 (default: 3)")
    demo.set_defaults(command=_demo)
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
    bench = commands.add_parser("benchmark", help="this machine's limit, the plain way and ours, per network evaluation")
    bench.add_argument("--size", default="compact", help="network preset (default: compact)")
    bench.add_argument("--shape", type=int, nargs=3, default=[144, 176, 144], help="voxels (default: 144 176 144)")
    bench.add_argument("--json", help="file to write the figures to")
    bench.set_defaults(command=_benchmark)
    return parser


def _floors(options: argparse.Namespace) -> None:
    from .evaluation.floors import floors

    given = {"modality": options.modality, "block": options.block, "split": options.split}
    floors(options.dataset_dir, **given, max_cases=options.max_cases)


def _benchmark(options: argparse.Namespace) -> None:
    from .evaluation.benchmark import benchmark

    benchmark(options.size, options.shape, json_path=options.json)


def _demo(options: argparse.Namespace) -> None:
    from .evaluation.demo import demo

    demo(options.output, samples=max(options.samples, 2))


def _export(options: argparse.Namespace) -> None:
    from .training import export_weights

    export_weights(options.checkpoint, options.weights)


if __name__ == "__main__":
    sys.exit(main())
