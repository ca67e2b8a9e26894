# SPDX-License-Identifier: Apache-2.0
"""`score-fusion-bids BIDS_DIR OUT participant|group`, as BIDS-Apps are called; imports little before it runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..__main__ import ABOUT, RUN, arg, greet
from ..bundle import bundle_version
from ..errors import exit_code
from ..start import run, start
from ..trust import asked_for

TASKS = ("any", "super_resolution", "super_resolution_thick_slice")  # of a single scan
# Of `restore`: what is asked of every scan alike.
SHARED = ("--steps", "--samples", "--seed", "--device", "--weights", "--spacing", "--thickness", "--adapt", "--backend",
          "--force", "--bids-filter", "--set", "--trust", "--sha256")  # fmt: skip
ARGUMENTS = (
    arg("bids_dir", metavar="BIDS_DIR", help="the BIDS data set"),
    arg("output_dir", metavar="OUT", help="folder for the derivatives, as BIDS_DIR/derivatives/score-fusion"),
    arg("level", metavar="LEVEL", choices=["participant", "group"],
        help="participant restores scans; group makes a page of all that are restored"),
    arg("--participant-label", "--participant_label", dest="participants", nargs="+", metavar="LABEL",
        help="with or without sub- (default: all)"),
    arg("--session-label", "--session_label", dest="sessions", nargs="+", metavar="LABEL",
        help="with or without ses- (default: all)"),
    arg("--modality", metavar="SUFFIX", help="T1w, T2w, FLAIR, ...: the suffix of the scans (default: T1w; of group: any)"),
    arg("--task", choices=TASKS, help="default: any"),
    arg("--skull-stripped", action="store_true", help="the scans are, where their sidecars say nothing of SkullStripped"),
    arg("--skip-bids-validation", "--skip-bids-validator", "--skip_bids_validator", dest="skip_validation",
        action="store_true", help="go on without a dataset_description.json"),
    *(given for given in RUN if given[0][0] in SHARED),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one level; bad input is one line and exit code 1, and 2 says that some scans were not restored."""
    start(alone=arguments is None)
    options = vars(_parser().parse_args(arguments))
    with asked_for(options.pop("trust", []), options.pop("sha256", [])):
        level = options.pop("level")
        greet(level, {"source": options["bids_dir"], "output": options["output_dir"]})
        return exit_code(lambda: run(f".{level}", level, __package__, options))


def _parser() -> argparse.ArgumentParser:
    name = Path(sys.argv[0]).name
    prog = name if name.startswith("score-fusion") else f"python -m {__package__}"
    parser = argparse.ArgumentParser(prog=prog, description=f"BIDS-App. {ABOUT}", argument_default=argparse.SUPPRESS)
    parser.add_argument("-v", "--version", action="version", version=f"score-fusion {bundle_version()}")
    for names, given in ARGUMENTS:
        parser.add_argument(*names, **given)
    return parser


if __name__ == "__main__":
    sys.exit(main())
