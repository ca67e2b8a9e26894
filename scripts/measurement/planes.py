# SPDX-License-Identifier: Apache-2.0
"""The three planes of a RAS volume."""

from ..errors import BadInput

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the spatial axis along which slices are cut


def axis_of(plane: str) -> int:
    """The spatial axis a plane is sliced along. Raises BadInput when there is no such plane."""
    if plane not in PLANES:
        raise BadInput(f"no plane '{plane}'; choose one of {', '.join(PLANES)}")
    return PLANES[plane]
