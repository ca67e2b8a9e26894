# SPDX-License-Identifier: Apache-2.0
"""Files of volumes: which suffix is which format, and what opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib

from ..errors import BadInput


class Format(NamedTuple):
    """open: path -> image as nibabel's: `affine` (4, 4) to RAS in mm, `shape`, `get_data_dtype()`, and `dataobj`, read late."""

    name: str
    open: Callable[[Path], Any]


NIFTI, MGH = Format("NIfTI", nib.load), Format("FreeSurfer MGH", nib.load)
# A format is a line here: suffix in lower case -> format.
FORMATS = {".nii": NIFTI, ".nii.gz": NIFTI, ".mgh": MGH, ".mgz": MGH}


def suffix(path: str | Path) -> str:
    """Of a file of a volume, as it stands in `FORMATS`; "" of any other file."""
    name = Path(path).name.lower()
    return next((known for known in FORMATS if name.endswith(known)), "")


def stem(path: str | Path) -> str:
    """The file's name without the suffix of a volume."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def format_of(path: str | Path) -> Format:
    """The format that a file's name tells. Raises BadInput when it tells none."""
    if not (known := suffix(path)):
        raise BadInput(f"{path}: no volume has such a name; convert it to one of {', '.join(FORMATS)}")
    return FORMATS[known]
