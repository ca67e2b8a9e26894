# SPDX-License-Identifier: Apache-2.0
"""What of a header's texts may stand in a log or a record: words that are nobody's. Any tag may hold a name."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import BadInput, one_line


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODALITIES = _words(
    "CR CT DX ECG EEG ES IO IVUS KO MG MR NM OCT OT PR PT PX REG RF RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT SC SEG SM SR US XA"
)
UNITS = _words("US HU MGML OD PCT NORMALIZED NONE 1")
# Third and further values of image types, as scanners write them.
KINDS = _words(
    "ADC ADD CSA DIFFUSION DIS2D DIS3D DIXON F FAT FFE FM FS I IMAGINARY IN_PHASE IP IR M MFSPLIT MIP MOSAIC MPR M_FFE "
    "M_IR M_SE NC ND NONE NORM OP OTHER OUT_PHASE P PHASE PRIMARY PROPELLER R REAL REFORMATTED RESAMPLED SE SECONDARY SH "
    "MAGNITUDE SUB T1 T2 TRACEW W WATER"
)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
NUMBER = re.compile(r"-?(\d{1,7}(\.\d{1,4})?|0\.0{1,6}\d{1,4})")  # a date has eight digits


@contextmanager
def silent() -> Iterator[None]:
    """No warnings on values that break the standard, of tags that nobody asks for: they tell the values."""
    silence_pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def silence_pydicom() -> None:
    """pydicom warns of values that break the standard, in a log and to the terminal, and tells them."""
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    logger = logging.getLogger("pydicom")
    if _says_nothing not in logger.filters:
        logger.addFilter(_says_nothing)


def _says_nothing(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def without_values(text: str) -> str:
    """A message of a library without what stands in quotes, which is what the header held."""
    return QUOTED.sub("***", text)


@contextmanager
def writing() -> Iterator[None]:
    """Raises BadInput, without values of headers, where the standard does not bear what a source holds."""
    try:
        yield
    except (BadInput, OSError):
        raise
    except Exception as error:
        raise BadInput(f"no DICOM can be written of it ({without_values(one_line(error))}); mend its header") from error


def is_common(value: Any) -> bool:
    """Whether a number, or words between slashes or blanks, are of those that every scanner writes."""
    return all(NUMBER.fullmatch(word) or word.upper() in KINDS | UNITS for word in re.split(r"[ /]", str(value)) if word)
