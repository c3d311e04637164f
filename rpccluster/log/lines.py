"""The forms of a log line, text and JSON, and the escaping of what comes into it from outside. Any process.

No exception and no caller's text can forge a line, fill the disk, or raise while it is written. So tracebacks are
written here and not by Python, with a bound on chained exceptions and on the calls of each, and every text escaped and
cut.
"""

from __future__ import annotations

import codecs
import functools
import json
import logging
import os
import time
import traceback
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rpccluster.failure import error_text
from rpccluster.log.own_logger import OWN_NAME

__all__ = [
    "FORMAT",
    "OUTPUT_FORMAT",
    "access_line",
    "escaped",
    "formatter",
    "lost_lines",
    "output_formatter",
    "output_line",
    "own_record",
    "set_format",
]

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
OUTPUT_FORMAT = "[%(levelname)s] %(message)s"  # the reader of the output adds time and pid

_LONGEST = 200
_LONGEST_TRACEBACK = 20_000
_LONGEST_MESSAGE = 1_000  # characters of an exception's message in its traceback
_MOST_CHAINED = 8  # exceptions of a chain
_MOST_CALLS = 30  # calls of each exception
_CAUSE = "The above exception was the direct cause of the following exception:"  # Python's own words
_CONTEXT = "During handling of the above exception, another exception occurred:"
_escape = codecs.getencoder("unicode_escape")  # looked up once: a worker may have no right to read codecs later


_is_json = False


def set_format(name: str) -> None:
    """Write all lines of this process as ``name`` says from now on: "text", or "json" for one object a line."""
    global _is_json
    _is_json = name == "json"


def escaped(text: str, longest: int = _LONGEST, keep: str = "") -> str:
    """Make ``text`` from outside safe for one log line: escape control characters, cut to ``longest`` characters.

    The control characters in ``keep`` stay.
    """
    cut = text if len(text) <= longest else text[:longest] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() or c in keep else _escape(c)[0].decode() for c in cut)


@functools.lru_cache(maxsize=2)  # most lines come with others
def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _object(created: float, pid: int, **fields: object) -> str:
    """Write a line of JSON; its time is that of RFC 3339, and characters beyond ASCII are escaped."""
    when = datetime.fromtimestamp(created).astimezone().isoformat(timespec="milliseconds")
    return json.dumps({"time": when, "pid": pid, **fields})


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if not _is_json or self is output_formatter:
            return super().format(record)
        fields = {"level": record.levelname, "message": record.getMessage()}
        if record.name != OWN_NAME:
            fields["logger"] = record.name
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return _object(record.created, record.process or 0, **fields)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(int(record.created))

    def formatException(self, ei: Any) -> str:
        """Write a traceback as Python does, but bounded, and with no line forged by the exception."""
        try:
            shown = "\n".join(_traceback_lines(ei[1]))
        except BaseException:  # any code may have made the exception, and a log line must not fail
            return "(its traceback cannot be had)"
        return shown if len(shown) <= _LONGEST_TRACEBACK else shown[:_LONGEST_TRACEBACK] + "…"


#: Formats every line of this process.
formatter = _Formatter(FORMAT)
#: Formats the log's lines of a process whose log goes into its output.
output_formatter = _Formatter(OUTPUT_FORMAT)


def _traceback_lines(error: BaseException | None) -> Iterator[str]:
    links: list[tuple[BaseException, str]] = []
    link = ""
    while error is not None and len(links) < _MOST_CHAINED:
        links.append((error, link))
        if error.__cause__ is not None:
            error, link = error.__cause__, _CAUSE
        else:
            error, link = None if error.__suppress_context__ else error.__context__, _CONTEXT
    if error is not None:
        yield "(more exceptions came before)"
    for each, link in reversed(links):
        yield "Traceback (most recent call last):"
        for entry in traceback.format_tb(each.__traceback__, -_MOST_CALLS):
            yield from (escaped(line) for line in entry.rstrip("\n").split("\n"))
        yield escaped(error_text(each), _LONGEST_MESSAGE)
        if link:
            yield link


def lost_lines(count: int, reason: str) -> bytes:
    """Write the line that stands for ``count`` lost lines."""
    record = own_record(logging.WARNING, f"{count} lines of the log were lost: {reason}")
    return (formatter.format(record) + "\n").encode()


def output_line(pid: int, name: str, text: str) -> str:
    """Write a line of the output of the process ``pid``, which runs ``name``."""
    if _is_json:
        return _object(time.time(), pid, plugin=name, message=text)
    return f"[{_time(int(time.time()))}] [{pid}] [{name}] {text}"


def access_line(peer: str, method: str, milliseconds: float, outcome: str) -> str:
    """Write the line of a call that ``peer`` made and that ends now: "ok", or with the text of an error."""
    if _is_json:
        call = {"peer": peer, "method": method, "milliseconds": round(milliseconds, 3), "outcome": outcome}
        return _object(time.time(), os.getpid(), **call)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return f"[{stamp}] [{os.getpid()}] {peer} {method} {milliseconds:.3f}ms {outcome}"


def own_record(level: int, text: str) -> logging.LogRecord:
    """Make the record of a line that the log itself writes."""
    return logging.LogRecord(OWN_NAME, level, __file__, 0, text, None, None)
