# SPDX-License-Identifier: Apache-2.0
"""The one error a user can mend, and how messages are worded."""

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

logger = logging.getLogger(__name__)


class BadInput(ValueError):
    """Something the user gave cannot be used; the message is one line that names it, the fact and the remedy."""


# A worker of a DataLoader hands on no exception but the text of its traceback.
_TOLD = re.compile(rf"^{BadInput.__module__}\.{BadInput.__qualname__}: (.+)$", re.MULTILINE)


def root_cause(error: BaseException | None) -> BadInput | None:
    """The `BadInput` behind an error that a framework has wrapped, or None when there is none."""
    while error is not None and not isinstance(error, BadInput):
        told = _TOLD.search(str(error))
        error = BadInput(told.group(1)) if told else error.__cause__ or error.__context__
    return error


def one_line(error: BaseException) -> str:
    """What to tell a user: the `BadInput` behind an error, or kind and first words of the one that a transform raised."""
    known = root_cause(error)
    while str(error).startswith("applying transform") and error.__cause__ is not None:  # MONAI's words for any
        error = error.__cause__
    return str(known) if known else f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def named(case: str, line: str) -> str:
    """The line with the case's name before it, unless it begins so."""
    return line if line.startswith(f"case {case}:") else f"case {case}: {line}"


def listed(items: Sequence[str], separator: str = ", ", *, most: int = 6) -> str:
    """The first of some items, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])


def several(count: int, name: str) -> str:
    """As "1 case" or "3 cases"."""
    return f"{count} {name}{'s' * (count != 1)}"


def in_words(seconds: float) -> str:
    """As "45 s", "2.5 min", "12 min" or "2.5 h": no more than a twentieth off."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.{int(seconds < 600)}f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def end_cleanly() -> None:
    """From now on SIGTERM ends this process as an error would, with code 143: what was unpacked or half written is removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    with suppress(ValueError):  # in a thread
        signal.signal(signal.SIGTERM, end)


def exit_code(command: Callable[[], object]) -> int:
    """Run a command line's work: 0, or 1 after the one line of a `BadInput`. Who reads no further, as `head`, is no error."""
    end_cleanly()
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
    except Exception as error:
        known = root_cause(error)
        if known is None:
            raise
        logger.debug("refused here", exc_info=error)
        print(f"error: {known}", file=sys.stderr)
        return 1
    return 0
