"""Where log lines go: one file or stderr, and an access log; written by descriptor, reopened in place.

Owns the two descriptors of each process, which keep their numbers for life: reopening puts a new file under
the same number. The master opens files; workers, which may not have the right to, are handed descriptors.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rpccluster.failure import error_text
from rpccluster.system import umasked, write

__all__ = ["FORMAT", "LEVELS", "LogFiles", "escaped", "logger"]

FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class _Logger(logging.Logger):
    """Logs for those who must go on: a handler that a service has added may raise."""

    def handle(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(BaseException):
            super().handle(record)


logging.setLoggerClass(_Logger)
logger = logging.getLogger("rpccluster")
logging.setLoggerClass(logging.Logger)

_STDOUT, _STDERR = 1, 2
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


class _DescriptorHandler(logging.Handler):
    """Writes each line with one write(2), so that lines of several processes never mix."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.setFormatter(_Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # nothing that is logged can pass for another line: what does not begin one is indented
            line = self.format(record).replace("\n", "\n  ") + "\n"
        except Exception:  # arguments that do not fit: whoever logs them is told, and goes on
            self.handleError(record)
            return
        with contextlib.suppress(OSError):  # a full disk stops the log, never the service
            write(self._descriptor, line.encode("utf-8", "backslashreplace"))


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

    def open(self) -> None:
        """Open the files. Raises OSError; then none is open."""
        if self.log_path:
            self.log_descriptor = self._open(self.log_path)
        if self.access_path == "on":
            self.access_descriptor = self.log_descriptor
        elif self.access_path:
            try:
                self.access_descriptor = self._open(self.access_path)
            except OSError:
                self.close()
                raise

    def close(self) -> None:
        """Close this process's copies; stderr stays."""
        for descriptor in self.descriptors():
            if descriptor != _STDERR:
                os.close(descriptor)

    def reopen(self) -> list[int]:
        """Open the same paths anew under the same numbers. Returns the descriptors, to be handed on. Raises OSError."""
        if self.log_path:
            self._replace(self.log_descriptor, self.log_path)
        if self.access_path and self.access_path != "on" and self.access_descriptor is not None:
            self._replace(self.access_descriptor, self.access_path)
        if self.holds_output:
            self.hold_output()
        return self.descriptors()

    def hold_output(self) -> None:
        """Let stdout and stderr lead to the log from now on, or nowhere if that has no file: they were the user's."""
        self.holds_output = True
        output = os.dup(self.log_descriptor) if self.log_path else os.open(os.devnull, os.O_WRONLY)
        for standard in (_STDOUT, _STDERR):
            os.dup2(output, standard)
        os.close(output)

    def descriptors(self) -> list[int]:
        """The log's descriptor, then the access log's if it has one of its own."""
        own = self.access_descriptor not in (None, self.log_descriptor)
        return [self.log_descriptor, self.access_descriptor] if own else [self.log_descriptor]  # type: ignore[list-item]

    def take(self, descriptors: list[int]) -> None:
        """Put descriptors that the master sent under this process's numbers, and close them."""
        for new, old in zip(descriptors, self.descriptors()):
            os.dup2(new, old, inheritable=old == _STDERR)
        for new in descriptors:
            os.close(new)
        if self.holds_output:
            self.hold_output()

    def _replace(self, descriptor: int, path: str) -> None:
        new = self._open(path)
        os.dup2(new, descriptor, inheritable=False)
        os.close(new)

    def _open(self, path: str) -> int:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with umasked(self.umask):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self.owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, *self.owner)
        return descriptor


def set_up_logging(descriptor: int, level: str) -> None:
    """Send this process's logging, the service's own included, to ``descriptor``."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _DescriptorHandler):
            root.removeHandler(handler)
    root.addHandler(_DescriptorHandler(descriptor))
    root.setLevel(LEVELS[level])
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
    """Print ``text`` to stderr for the person who started this; a closed stderr is no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def escaped(text: str, longest: int = _LONGEST) -> str:
    """``text`` from outside, safe for one log line: control characters escaped, cut to ``longest`` characters."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return "".join(c if c.isprintable() else _escape(c)[0].decode() for c in cut)
