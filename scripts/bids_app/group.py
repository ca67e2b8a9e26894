# SPDX-License-Identifier: Apache-2.0
"""The level of the group: a page for every scan that is restored, and one for all of a contrast."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..data.layouts import place_of
from ..errors import BadInput, several
from ..files import write_text
from ..measurement import Task
from ..report.page import group_page
from ..report.run import PAGE, digest_of, report
from ..running.record import record
from .derivatives import PAGES, WORK
from .scans import Scan, choose

Run = tuple[Path, dict[str, Any]]  # a folder of `restore`, and its record
UNFINISHED = "was not finished; run the level participant again"
TITLE_WITHIN = 2000  # characters of a page


def group(
    bids_dir: str, output_dir: str, *, modality: str | None = None, participants: Sequence[str] = (),
    sessions: Sequence[str] = (), bids_filter: Mapping[str, Any] | None = None, **options: Any,
) -> None:  # fmt: skip
    """Write OUT/docs/group_CONTRAST.html, and say of scans whose run did not end. bids_dir, options: as the other level takes
    them; nothing is read there.

    modality, participants, sessions, bids_filter: as for `choose`. Raises BadInput where no such scan has been restored.
    """
    out = Path(output_dir).expanduser()
    records = {folder: record(folder) for folder in sorted((out / WORK).glob("sub-*/"))}
    scans = [Scan(out / WORK, folder, _contrast(folder, results)) for folder, results in records.items()]
    contrasts: dict[str, list[Run]] = {}
    for scan in choose(scans, modality, participants=participants, sessions=sessions, bids_filter=bids_filter):
        contrasts.setdefault(scan.contrast, []).append((scan.path, records[scan.path]))
    contrasts = {contrast: runs for contrast, runs in contrasts.items() if any(results for _, results in runs)}
    if not contrasts:
        which = "such scan" if scans else "scan"
        raise BadInput(f"{out}: holds no {which} that was restored; run the level participant first")
    for contrast, runs in contrasts.items():
        there = sum(scan.contrast == contrast for scan in scans)
        part = f", of {len(runs)} of {several(there, 'scan')}: those that were chosen" if len(runs) < there else ""
        page = out / PAGES / f"group_{contrast}.html"
        write_text(page, _page(page, runs, part))
        print(f"{page}{part}")


def _contrast(folder: Path, results: Mapping[str, Any]) -> str:
    """Of a scan, by its record, or by the name of its folder where a run left none."""
    told = results.get("task", {}).get("target")
    return str(told or (place_of(folder, folder.parent) or ("", ""))[1])


def _page(page: Path, runs: Sequence[Run], part: str) -> str:
    """Each scan under its own name, whatever its run calls it; what holds for all is told as of the last.

    page: where this one is to lie; part: as for `group_page`.
    """
    cases: dict[str, Any] = {}
    failures: dict[str, str] = {}
    pages: dict[str, tuple[str, str]] = {}
    unseen: dict[str, str] = {}
    for folder, results in runs:
        done, failed = results.get("cases", {}), results.get("failures", {})
        cases |= dict.fromkeys([folder.name] if done else [], next(iter(done.values()), {}))
        failures |= dict.fromkeys([folder.name] if failed else [], next(iter(failed.values()), ""))
        if not (done or failed):
            unseen[folder.name] = UNFINISHED
            print(f"{folder.name}: {UNFINISHED}")
        for case in done:
            if not (result := folder / case / f"{case}_pred.nii.gz").is_file():
                unseen[folder.name] = "its result is gone; run the level participant again"
            elif (shown := _reported(folder, case, page)).is_file():
                pages[folder.name] = Path(os.path.relpath(shown, page.parent)).as_posix(), digest_of(result)
            else:
                unseen[folder.name] = f"score-fusion report {folder} says why"
    latest = next(results for _, results in reversed(runs) if results)
    told = {key: latest[key] for key in ("task", "system", "model", "versions")}
    merged = {**told, "cases": cases, "failures": failures}
    name = page.parent.parent.resolve().name
    return group_page(merged, Task.of(latest["task"]), pages=pages, unseen=unseen, name=name, part=part)


def _reported(folder: Path, case: str, group: Path) -> Path:
    """The page of a case under the scan's name, which leads to that of the group; written anew if it is older than its run."""
    page, run = folder / case / PAGE, folder / "run.json"
    if not page.is_file() or page.stat().st_mtime < run.stat().st_mtime or not _is_of(page, folder.name):
        report(str(folder), name=folder.name, above=Path(os.path.relpath(group, page.parent)).as_posix())
    return page


def _is_of(page: Path, name: str) -> bool:
    """Whether a page calls its case so: `score-fusion report` calls it otherwise, and a rating is kept by name."""
    with page.open(encoding="utf-8") as text:
        return f"<title>{escape(name)} &middot;" in text.read(TITLE_WITHIN)
