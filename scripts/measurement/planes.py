# SPDX-License-Identifier: Apache-2.0
"""Planes of volumes: of the body by their names, and of any volume by their two axes."""

from ..errors import BadInput

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # of a RAS volume: the spatial axis along which slices are cut
PAIRS = {"y-z": 0, "x-z": 1, "x-y": 2, "y-t": 0, "x-t": 1}  # of volumes (x, y, z) and loops (x, y, t), likewise
SPACE_TIME = "space-time"  # no plane: a member that sees the volume whole
MEMBERS = (*PLANES, *PAIRS, SPACE_TIME)  # names of all that a fusion may be of


def axis_of(plane: str) -> int:
    """The axis a plane is sliced along. Raises BadInput when there is no such plane."""
    known = PLANES | PAIRS
    if plane not in known:
        raise BadInput(f"no plane '{plane}'; choose one of {', '.join(known)}")
    return known[plane]
