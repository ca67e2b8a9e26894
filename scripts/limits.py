# SPDX-License-Identifier: Apache-2.0
"""What was measured to be wrong with weights that ship: `limits.json` beside them."""

from pathlib import Path
from typing import Any, NamedTuple

from .errors import BadInput
from .files import read_json, sha256

FILE = "limits.json"


class Limits(NamedTuple):
    """Of a file of weights. caveat: a line for who uses it, "" for none; most_steps: of the sampler, beyond which results are
    more than 1 dB below those of one step or no better than with no network, None where nobody measured it. offered: by
    Label and Slicer to who names no task; not what was seen to be no better than no network, or on too few to tell.
    """

    caveat: str = ""
    most_steps: int | None = None
    offered: bool = True


def limits_of(weights: str | Path, *, steps: int | None = None, force: bool = False) -> Limits:
    """What is listed for this very file, by name and sha256: nothing was measured of weights of one's own.

    steps: that are wanted, None for any. Raises BadInput, unless forced, when the file does not bear so many.
    """
    path = Path(weights)
    table = path.with_name(FILE)
    entry: dict[str, Any] = read_json(table, "fetch it again").get(path.name, {}) if table.is_file() else {}
    if not path.is_file() or entry.get("sha256") != sha256(path):
        return Limits()
    limits = Limits(entry.get("caveat", ""), entry.get("most_steps"), entry.get("offered", True))
    if steps is not None and limits.most_steps is not None and steps > limits.most_steps and not force:
        fact = f"{path.name}: {steps} steps are more than these weights bear (docs/gate.md)"
        raise BadInput(f"{fact}; take --steps {limits.most_steps} or fewer, or --force")
    return limits
