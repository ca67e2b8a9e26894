# SPDX-License-Identifier: Apache-2.0
"""DICOM files as streams that pydicom may read: with preamble and file meta, inflated within bounds, nothing else as well."""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ...errors import BadInput

# The 128 bytes before "DICM" are free, so one file can be an image to one program and code to another (PS3.10, 7.1).
DISGUISES = {
    b"MZ": "a Windows program",
    b"\x7fELF": "a Linux program",
    b"#!": "a script",
    b"\xfe\xed\xfa": "a macOS program",
    b"\xcf\xfa\xed\xfe": "a macOS program",
    b"\xca\xfe\xba\xbe": "a macOS or Java program",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"PK\3\4": "a zip archive",
    b"%PDF": "a PDF document",
}
PREAMBLE = bytes(128) + b"DICM"
# A first element of group 2 or 8 where the preamble should be: its tag, then its type or, without types, a short length.
BARE = re.compile(rb"DICM|[\2\x08]\0[\0\1\5\x08\x12\x16]\0([A-Z]{2}|[\2-\x40]\0\0\0)")
META_START = 144  # of the elements after the length of the file meta information
HEADER_BYTES = 4 << 20  # inflated to see what a deflated file declares
INFLATED_BYTES, INFLATION = 64 << 20, 100  # what a deflated file may become: this much, or so many times its size


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, by its content or its name."""
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    if not path.is_file():  # a pipe, a link to nowhere
        return False
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return True  # it might be a slice: `read_header` names it
    return start[128:] == b"DICM" or BARE.match(start) is not None


def may_be_cut(path: Path) -> bool:
    """Whether a file that cannot be read may have been an image, which a text with a suffix of DICOM never was."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return True
    empty = not start[:128].strip(b"\0") and b"DICM".startswith(start[128:])
    return empty or start[128:] == b"DICM" or BARE.match(start) is not None


def opened(path: Path) -> BinaryIO:
    """A file as DICOM with preamble and file meta, uncompressed where it was deflated. Raises BadInput, OSError."""
    file = path.open("rb")
    start = file.read(1024)
    disguise = next((what for magic, what in DISGUISES.items() if start.startswith(magic)), None)
    if start[128:132] == b"DICM" and disguise is None and DeflatedExplicitVRLittleEndian.encode() not in start:
        file.seek(0)
        return file
    with file:
        data = start + file.read()
    if start[128:132] == b"DICM" and disguise:
        raise BadInput(f"{path}: begins like {disguise}, as malware in DICOM does; ask its sender")
    if start[128:132] != b"DICM":
        data = _completed(path, data)
    return io.BytesIO(_inflated(path, data) if DeflatedExplicitVRLittleEndian.encode() in data[:1024] else data)


def _completed(path: Path, data: bytes) -> bytes:
    """Preamble and file meta information put before a file without them."""
    if not BARE.match(data):
        raise BadInput(f"{path}: is not DICOM ({len(data)} bytes, no DICM at byte 128); copy it again, or leave it out")
    if data.startswith((b"DICM", b"\2\0")):
        return PREAMBLE + data.removeprefix(b"DICM")
    syntax = (ExplicitVRLittleEndian if data[4:6].isalpha() else ImplicitVRLittleEndian).encode()
    syntax += b"\0" * (len(syntax) % 2)
    meta = b"\2\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    return PREAMBLE + b"\2\0\0\0UL\4\0" + len(meta).to_bytes(4, "little") + meta + data


def _inflated(path: Path, data: bytes) -> bytes:
    """A deflated file as an uncompressed one; no further than its own header and the size of the file allow."""
    end = META_START + int.from_bytes(data[140:META_START], "little")
    # of the same length, as identifiers are padded with zeros
    plain = ExplicitVRLittleEndian.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0")
    meta = data[:end].replace(DeflatedExplicitVRLittleEndian.encode(), plain)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(data[end:], HEADER_BYTES)
    if inflater.unconsumed_tail:
        header = pydicom.dcmread(io.BytesIO(meta + body), stop_before_pixels=True)
        declared = HEADER_BYTES + pixel_bytes(header)
        body += inflater.decompress(inflater.unconsumed_tail, min(declared, max(INFLATED_BYTES, INFLATION * len(data))))
    if inflater.unconsumed_tail:
        raise BadInput(f"{path}: its {len(data)} bytes inflate to far more than an image of its size; ask its sender")
    return meta + body


def with_syntax(dataset: Any) -> Any:
    """A dataset as it was read, with the transfer syntax it was read by where its file meta names none."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def pixel_bytes(dataset: Any) -> int:
    """What the pixels take uncompressed, by the header; 0 where it does not say."""
    frames, bits = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("BitsAllocated") or 0)
    return (
        int(dataset.get("Rows") or 0)
        * int(dataset.get("Columns") or 0)
        * int(dataset.get("SamplesPerPixel") or 1)
        * frames
        * bits
        // 8
    )
