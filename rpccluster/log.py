"""Where log lines go: one file or stderr, and an access log; written by descriptor, reopened in place.

Owns the two descriptors of each process, which keep their numbers for life: reopening puts a new file under
the same number. The master opens files; workers, which may not have the right to, are handed descriptors.
Nobody waits for a log, see `rpccluster.outlet`.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import stat
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rpccluster.failure import error_text
from rpccluster.outlet import Outlet, own_description, write_now
from rpccluster.own_files import open_own
from rpccluster.own_logger import OWN_NAME, OwnHandler, OwnLogger
from rpccluster.system import umasked

__all__ = ["FORMAT", "LEVELS", "LogFiles", "escaped", "logger"]

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


logging.setLoggerClass(OwnLogger)
logger: OwnLogger = logging.getLogger(OWN_NAME)  # type: ignore[assignment]
logging.setLoggerClass(logging.Logger)

_STDOUT, _STDERR = 1, 2
#: Not to be opened anew: they are what this process was started with, whatever that is.
_STANDARD = {
    **dict.fromkeys(("", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"), _STDERR),
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), _STDOUT),
}
_LAST_SECONDS = 1.0  # for what is left when a process ends
_LONGEST = 200
_LONGEST_TRACEBACK = 20_000
_LONGEST_MESSAGE = 1_000  # of an exception, in its traceback
_MOST_CHAINED = 8  # exceptions that are shown of a chain, and calls of each
_MOST_CALLS = 30
_CAUSE = "The above exception was the direct cause of the following exception:"  # Python's own words
_CONTEXT = "During handling of the above exception, another exception occurred:"
_escape = codecs.getencoder("unicode_escape")  # looked up once: a worker may have no right to read codecs later


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(record.created))

    def formatException(self, ei: Any) -> str:
        """As Python's own, but bounded, and none of its lines is made up by the exception."""
        try:
            shown = "\n".join(_traceback_lines(ei[1]))
        except BaseException:  # it comes from anywhere, and a log line must harm nobody
            return "(its traceback cannot be had)"
        return shown if len(shown) <= _LONGEST_TRACEBACK else shown[:_LONGEST_TRACEBACK] + "…"


_formatter = _Formatter(FORMAT)


def _lost_lines(count: int, reason: str) -> bytes:
    """The line that tells of lines that are missing."""
    record = _record(logging.WARNING, f"{count} lines of the log were lost: {reason}")
    return (_formatter.format(record) + "\n").encode()


def _record(level: int, text: str) -> logging.LogRecord:
    """For a line of the log's own."""
    return logging.LogRecord(logger.name, level, __file__, 0, text, None, None)


class _DescriptorHandler(OwnHandler):
    """Writes each line with one write(2), so that lines of several processes never mix."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet
        self.setFormatter(_formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # arguments that do not fit: whoever logs them is told, and goes on
            told = f"a log call failed in {record.pathname}, line {record.lineno}: {error_text(error)}"
            line = self.format(_record(logging.ERROR, told))
        # nothing that is logged can pass for another line: what does not begin one is indented
        self._outlet.write((line.replace("\n", "\n  ") + "\n").encode("utf-8", "backslashreplace"))


@dataclass
class LogFiles:
    """The log and the access log of this process, and the way to reopen them.

    ``log_path`` empty means stderr; ``access_path`` empty means no access log, equal to "on" the log itself.
    ``owner`` is the (uid, gid) that new files are given to, if any; ``umask`` what they are made under.
    ``holds_output`` says that stdout and stderr lead to the log, too.
    """

    log_path: str
    access_path: str
    owner: tuple[int, int] | None = None
    umask: int | None = None
    log_descriptor: int = _STDERR
    access_descriptor: int | None = None
    holds_output: bool = False
    outlet: Outlet = field(default_factory=lambda: Outlet(_STDERR, _lost_lines))
    access_outlet: Outlet | None = None

    @property
    def is_file(self) -> bool:
        """Whether the log is a file of its own, and not what stdout or stderr were at the start."""
        return _standard(self.log_path) is None

    def open(self) -> None:
        """Open the files. Raises OSError; then none is open."""
        self.log_descriptor = self._open(self.log_path)
        self.outlet = Outlet(self.log_descriptor, _lost_lines)
        if self.access_path == "on":
            self.access_descriptor, self.access_outlet = self.log_descriptor, self.outlet
        elif self.access_path:
            try:
                self.access_descriptor = self._open(self.access_path)
            except OSError:
                self.close()
                raise
            self.access_outlet = Outlet(self.access_descriptor, _lost_lines)

    def close(self) -> None:
        """Close this process's copies; stdout and stderr stay."""
        for descriptor in self.descriptors():
            if descriptor > _STDERR:
                os.close(descriptor)

    def reopen(self) -> list[int]:
        """Open the same paths anew under the same numbers. Returns the descriptors, to be handed on. Raises OSError."""
        self._replace(self.log_descriptor, self.log_path)
        if self.access_path and self.access_path != "on" and self.access_descriptor is not None:
            self._replace(self.access_descriptor, self.access_path)
        if self.holds_output:
            self.hold_output()
        return self.descriptors()

    def hold_output(self) -> None:
        """Let stdout and stderr lead to the log from now on, or nowhere if that has no file: they were the user's."""
        self.holds_output = True
        output = os.dup(self.log_descriptor) if self.is_file else os.open(os.devnull, os.O_WRONLY)
        standard = {_STDOUT, _STDERR}
        for descriptor, path in zip(self.descriptors(), (self.log_path, self.access_path)):
            if _standard(path) is not None:
                standard.add(descriptor)
        for descriptor in standard:
            os.dup2(output, descriptor, inheritable=descriptor <= _STDERR)
        os.close(output)

    def descriptors(self) -> list[int]:
        """The log's descriptor, then the access log's if it has one of its own."""
        own = self.access_descriptor not in (None, self.log_descriptor)
        return [self.log_descriptor, self.access_descriptor] if own else [self.log_descriptor]  # type: ignore[list-item]

    def take(self, descriptors: list[int]) -> None:
        """Put descriptors that the master sent under this process's numbers, and close them."""
        for new, old in zip(descriptors, self.descriptors()):
            os.dup2(new, old, inheritable=old <= _STDERR)
        for new in descriptors:
            os.close(new)
        if self.holds_output:
            self.hold_output()

    def flush(self) -> None:
        """Write what waits for room, as far as there is some. Called now and then."""
        for outlet in self._outlets():
            outlet.flush()

    def drain(self) -> None:
        """The last lines: a reader that is slow is given a moment, one that has stopped no more than that."""
        for outlet in self._outlets():
            outlet.drain(_LAST_SECONDS)

    def _outlets(self) -> list[Outlet]:
        return [self.outlet, self.access_outlet] if self.access_outlet else [self.outlet]

    def _replace(self, descriptor: int, path: str) -> None:
        if _standard(path) is None:
            new = self._open(path)
            os.dup2(new, descriptor, inheritable=False)
            os.close(new)

    def _open(self, path: str) -> int:
        """Open for appending, without waiting for anybody."""
        standard = _standard(path)
        if standard is not None:
            return own_description(standard)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        flags = os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with umasked(self.umask):
            # read and write: so that a FIFO needs no reader yet, and keeps the lines while that is away
            return open_own(path, flags | (os.O_RDWR if _is_fifo(path) else os.O_WRONLY), self.owner)


def _standard(path: str) -> int | None:
    """stdout or stderr, if that is what ``path`` names, or what is linked there."""
    if path not in _STANDARD:
        with contextlib.suppress(OSError):
            path = os.readlink(path)
    return _STANDARD.get(path)


def _is_fifo(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False


def set_up_logging(logs: LogFiles, level: str) -> None:
    """Send this process's logging, the service's own included, to the log."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _DescriptorHandler):
            root.removeHandler(handler)
    handler = _DescriptorHandler(logs.outlet)
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    logger.write_by(handler.emit, LEVELS[level])
    logging.captureWarnings(True)


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


def say(text: str) -> None:
    """Print ``text`` to stderr for the person who started this; a stderr that is closed, or full, is no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
        write_now(sys.stderr.fileno(), f"{text}\n".encode("utf-8", "backslashreplace"))


def escaped(text: str, longest: int = _LONGEST) -> str:
    """``text`` from outside, safe for one log line: control characters escaped, cut to ``longest`` characters."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return "".join(c if c.isprintable() else _escape(c)[0].decode() for c in cut)
