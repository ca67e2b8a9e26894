# SPDX-License-Identifier: Apache-2.0
"""How much a command says, and whether as text or as lines of JSON. Errors stay one line on stderr."""

import io
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)


class Manner(NamedTuple):
    """verbosity: "quiet", "verbose" or "" for as `configs/logging.conf` has it; lines: of JSON, one for each record."""

    verbosity: str = ""
    lines: bool = False


_manner = Manner()


class JsonLines(logging.Formatter):
    """A record as a JSON object in one line: time (UTC), level, logger, message, and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = {"traceback": self.formatException(record.exc_info)} if record.exc_info and record.exc_info[1] else {}
        return json.dumps({**content, **trace}, ensure_ascii=False)


def say_any_name() -> None:
    """Names of files in another encoding are escaped on the terminal; Python would raise an error there."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def speak(verbosity: str = "", lines: bool = False) -> None:
    """From now on this process logs in this manner, also after a workflow has set up its own logging (`resume`)."""
    global _manner
    _manner = Manner(verbosity, lines)
    say_any_name()
    logging.getLogger(__package__).setLevel(logging.DEBUG if verbosity == "verbose" else logging.NOTSET)
    if verbosity or lines:
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        resume()


def resume() -> None:
    """Bring handlers and levels that others set back to what `speak` was told."""
    root = logging.getLogger()
    consoles: list[Any] = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    for handler in consoles if _manner.lines else []:
        handler.setFormatter(JsonLines())
    if _manner.verbosity == "quiet":
        root.setLevel(logging.WARNING)
    if _manner.verbosity == "verbose":
        for handler in consoles:
            handler.setLevel(logging.DEBUG)


def draws_bars() -> bool:
    """Whether bars may be drawn between the lines."""
    return not _manner.lines and _manner.verbosity != "quiet"


def say(text: str) -> None:
    """A line of a command about its work: printed, with JSON a record, and nothing where it is to be quiet."""
    if _manner.lines:
        logger.info("%s", text)
    elif _manner.verbosity != "quiet":
        print(text, flush=True)
