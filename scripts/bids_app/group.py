# SPDX-License-Identifier: Apache-2.0
"""The level of the group: a page for every scan that is restored, and one for all of a contrast."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..files import write_text
from ..measurement import Task
from ..report.page import group_page
from ..report.run import PAGE, cases_of, digest_of, report
from ..running.record import record
from .derivatives import PAGES, WORK
from .scans import Scan, choose

Run = tuple[Path, dict[str, Any]]  # a folder of `restore`, and its record


def group(
    bids_dir: str, output_dir: str, *, modality: str | None = None, participants: Sequence[str] = (),
    sessions: Sequence[str] = (), bids_filter: Mapping[str, Any] | None = None, **options: Any,
) -> None:  # fmt: skip
    """Write OUT/docs/group_CONTRAST.html. bids_dir, options: as the other level takes them; nothing is read there.

    modality, participants, sessions, bids_filter: as for `choose`. Raises BadInput where no such scan has been restored.
    """
    out = Path(output_dir).expanduser()
    records = {folder: results for folder in sorted((out / WORK).glob("sub-*/")) if (results := record(folder))}
    scans = [Scan(out / WORK, folder, results["task"]["target"]) for folder, results in records.items()]
    contrasts: dict[str, list[Run]] = {}
    for scan in choose(scans, modality, participants=participants, sessions=sessions, bids_filter=bids_filter):
        contrasts.setdefault(scan.contrast, []).append((scan.path, records[scan.path]))
    if not contrasts:
        which = "such scan" if scans else "scan"
        raise BadInput(f"{out}: holds no {which} that was restored; run the level participant first")
    for contrast, runs in contrasts.items():
        page = out / PAGES / f"group_{contrast}.html"
        write_text(page, _page(out, runs))
        print(page)


def _page(out: Path, runs: Sequence[Run]) -> str:
    """Each scan under its own name, whatever its run calls it; what holds for all is told as of the last."""
    cases: dict[str, Any] = {}
    failures: dict[str, str] = {}
    pages: dict[str, tuple[str, str]] = {}
    unseen: dict[str, str] = {}
    for folder, results in runs:
        cases |= dict.fromkeys([folder.name], facts) if (facts := next(iter(results["cases"].values()), None)) else {}
        failures |= dict.fromkeys([folder.name], line) if (line := next(iter(results["failures"].values()), "")) else {}
        for case in cases_of(folder, results["failures"]):
            if (page := _reported(folder, case)).is_file():
                result = folder / case / f"{case}_pred.nii.gz"
                pages[folder.name] = Path("..", page.relative_to(out)).as_posix(), digest_of(result)
            else:
                unseen[folder.name] = f"score-fusion report {folder} says why"
    _, latest = runs[-1]
    told = {key: latest[key] for key in ("task", "system", "model", "versions")}
    merged = {**told, "cases": cases, "failures": failures}
    return group_page(merged, Task.of(latest["task"]), pages=pages, unseen=unseen, name=out.resolve().name)


def _reported(folder: Path, case: str) -> Path:
    """The page of a case, written anew if it is older than its run."""
    page, run = folder / case / PAGE, folder / "run.json"
    if not page.is_file() or page.stat().st_mtime < run.stat().st_mtime:
        report(str(folder))
    return page
