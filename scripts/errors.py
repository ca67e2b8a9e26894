# SPDX-License-Identifier: Apache-2.0
"""The one error a user can mend."""

import os
import re
import sys
from collections.abc import Callable


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


def exit_code(command: Callable[[], object]) -> int:
    """Run a command line's work: 0, or 1 after the one line of a `BadInput`. Who reads no further, as `head`, is no error."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
    except Exception as error:
        known = root_cause(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return 1
    return 0
