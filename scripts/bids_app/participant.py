# SPDX-License-Identifier: Apache-2.0
"""The level of participants: every scan restored on its own, and written as a derivative."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput, one_line, root_cause, several
from ..running.commands import restore
from .derivatives import describe, publish, run_folder
from .scans import Scan, described, find_scans

FAILED = (1, 2)  # codes with which a run ends whose scan was not restored


def participant(
    bids_dir: str, output_dir: str, *, modality: str = "T1w", participants: Sequence[str] = (), sessions: Sequence[str] = (),
    bids_filter: Mapping[str, Any] | None = None, skip_validation: bool = False, skull_stripped: bool = False, **options: Any,
) -> None:  # fmt: skip
    """Restore the scans of some participants, one after the other; those that are finished are not computed again.

    participants, sessions, modality, bids_filter: as for `find_scans`; skull_stripped: as for `publish`; options: as for
    `restore`. Raises BadInput for a data set without such scans, and SystemExit with 2 where some scans were not restored,
    with 1 where none was.
    """
    root, out = Path(bids_dir).expanduser(), Path(output_dir).expanduser()
    source = described(root, skip=skip_validation)
    scans = find_scans(root, modality, participants=participants, sessions=sessions, bids_filter=bids_filter)
    describe(source, root, out)
    failures: dict[str, str] = {}
    for number, scan in enumerate(scans, start=1):
        print(f"scan {number} of {len(scans)}: {scan.name}", flush=True)
        try:
            _restore(scan, out, options)
            for path in publish(scan, out, skull_stripped=skull_stripped):
                print(f"  {path}", flush=True)
        except Exception as error:
            if root_cause(error) is None:
                raise
            failures[scan.name] = one_line(error)  # one scan to mend does not stop the others
    print(f"{len(scans) - len(failures)} of {several(len(scans), 'scan')} restored; next: the same command with group")
    for name, line in failures.items():
        print(f"error: {name}: {line}", file=sys.stderr)
    if failures:
        raise SystemExit(2 if len(failures) < len(scans) else 1)


def _restore(scan: Scan, out: Path, options: Mapping[str, Any]) -> None:
    """Raises BadInput with what the run says of a scan that was not restored."""
    folder = run_folder(scan, out)
    if not scan.path.exists():
        raise BadInput("is a link that leads nowhere; fetch the file, as with `datalad get`")
    try:
        restore(str(scan.path), str(folder), **{"contrast": scan.contrast, **options})
    except SystemExit as ended:
        if ended.code not in FAILED:
            raise
        from ..running.record import record  # here: it takes seconds to import, and has been by now

        lines = list(record(folder).get("failures", {}).values())
        raise BadInput(lines[0] if lines else "was not restored") from None
