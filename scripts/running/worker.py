# SPDX-License-Identifier: Apache-2.0
"""What a process imports that works for a cluster, before it knows what for."""

import signal
from collections.abc import Mapping
from typing import Any

from .lean import import_monai


def dask_setup(worker: Any) -> None:
    """Ctrl-C reaches all processes of a terminal; who started the workers ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def restore_case(recipe: str, entry: Mapping[str, Any], *, lean: bool) -> Any:
    """`notes.restore_case`; lean: whether it does without what is optional to MONAI."""
    if lean:
        import_monai()
    from .notes import restore_case as restore

    return restore(recipe, entry)
