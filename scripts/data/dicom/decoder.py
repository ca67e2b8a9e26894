# SPDX-License-Identifier: Apache-2.0
"""Pixels that GDCM decodes, in a process of their own: over damaged JPEG it throws what nothing catches.

That process runs this file by its path, so it imports nothing of ours.
"""

import atexit
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

BY_GDCM = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEG2000, JPEG2000Lossless)
BY_CHARLS = (JPEGLSLossless, JPEGLSNearLossless)  # whose errors are exceptions, while GDCM's end the process here, too


_idle: list[subprocess.Popen[bytes]] = []  # processes that wait for the next series
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # two that ask one process would get each other's answers


class Decoder:
    """Decodes within its `with`; a process is started when one is first needed, and serves series after series."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = False  # whether not all of an answer was read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is None:
            return
        if kind is None and not self._asking:
            _idle.append(self._process)
        else:  # it may have ended, or have more to say
            _end(self._process)
        self._process = None

    def frames(
        self, stream: BinaryIO, dataset: Any, indices: Sequence[int] | None = None, *, raw: bool = False
    ) -> Iterator[npt.NDArray[Any]]:  # fmt: skip
        """Frames (rows, columns) or (rows, columns, 3) of a dataset that was read from a stream, all or some; raw: in the
        colours in which they are stored. Raises ValueError, or what a decoder raises, when they cannot be decoded.
        """
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax in BY_GDCM:
            stream.seek(0)
            yield from self._asked(stream.read(), indices, raw)
        else:
            plugin = "pyjpegls" if syntax in BY_CHARLS else ""
            yield from iter_pixels(dataset, indices=indices, raw=raw, decoding_plugin=plugin)

    def _asked(self, content: bytes, indices: Sequence[int] | None, raw: bool) -> Iterator[npt.NDArray[Any]]:
        if self._process is None:
            self._process = _process()
        asked, answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        self._asking = True
        request = {"bytes": len(content), "indices": None if indices is None else list(indices), "raw": raw}
        try:
            asked.write(json.dumps(request).encode() + b"\n" + content)
            asked.flush()
        except OSError as error:
            raise ValueError("the decoder broke off") from error
        while (answer := json.loads(answers.readline() or b'{"error": "the decoder broke off"}')) != "end":
            if "error" in answer:
                raise ValueError(answer["error"])
            content = answers.read(answer["bytes"])
            yield np.frombuffer(content, dtype=answer["dtype"]).reshape(answer["shape"])
        self._asking = False


def _process() -> subprocess.Popen[bytes]:
    """One that waits, or a new one."""
    with suppress(IndexError):
        while (process := _idle.pop()).poll() is not None:
            continue
        return process
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-P", __file__], **pipes)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@atexit.register
def _end_idle() -> None:
    while _idle:
        _end(_idle.pop())


def _serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    warnings.simplefilter("ignore")
    while line := asked.readline():
        request = json.loads(line)
        content = asked.read(request["bytes"])
        end: Any = "end"
        try:
            dataset = pydicom.dcmread(io.BytesIO(content))
            for frame in iter_pixels(dataset, indices=request["indices"], raw=request["raw"]):
                about = {"dtype": frame.dtype.str, "shape": frame.shape, "bytes": frame.nbytes}
                answers.write(json.dumps(about).encode() + b"\n" + frame.tobytes())
        except Exception as error:  # every decoder fails in its own way
            end = {"error": (str(error).splitlines() or [type(error).__name__])[0]}
        answers.write(json.dumps(end).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
