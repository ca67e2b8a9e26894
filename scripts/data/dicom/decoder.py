# SPDX-License-Identifier: Apache-2.0
"""Pixels that GDCM decodes, in a process of their own: over damaged JPEG it throws what nothing catches.

That process runs this file by its path, so it imports nothing of ours.
"""

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
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


class Decoder:
    """Decodes within its `with`; the process is started when it is first needed, and serves many files."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

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
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen([sys.executable, "-P", __file__], **pipes)
        asked, answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
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
