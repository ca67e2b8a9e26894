# SPDX-License-Identifier: Apache-2.0
"""What cases hold, wherever their files lie: by which a study and a training know them again."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils.misc import ensure_tuple

from ..files import sha256

GZIP = b"\x1f\x8b"


def checksums(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of each of `find_cases`, by name, of what its files hold."""
    sources = {case["case"]: [ensure_tuple(case.get(key, ())) for key in ("image", "label", "mask")] for case in cases}
    content = {case: [[content_of(source) for source in one] for one in each] for case, each in sources.items()}
    return {case: _short(values) for case, values in content.items()}


def known_by(cases: Sequence[Mapping[str, Any]]) -> str:
    """How many cases there are, and a checksum of what they hold in their order; a name may change."""
    content = checksums(cases)
    return f"{len(cases)} ({_short([content[case['case']] for case in cases])})"


def content_of(source: Any) -> str:
    """sha256 of a file or a DICOM series; of a gzip the CRC-32 and length of what it holds, so that thousands take a second."""
    if hasattr(source, "files"):
        return "".join(map(content_of, source.files))
    try:
        with Path(source).open("rb") as stream:
            if stream.read(2) == GZIP:
                stream.seek(-8, os.SEEK_END)  # where both stand
                if any((end := stream.read())[4:]):  # bgzip ends on an empty part, which says nothing of the others
                    return end.hex()
        return sha256(Path(source))
    except OSError:
        return "unreadable"  # whoever uses it says so


def _short(values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
