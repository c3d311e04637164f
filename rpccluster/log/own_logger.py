"""The logger of rpccluster's own lines: they come whatever a service does to `logging`.

A service may replace all handlers, disable loggers that exist, set levels, and add handlers that raise or wait. So a
line is written by us, first; then it is handed on to the handlers of others, for which `logging` stays as the service
wants it. In a worker `OwnLogger.hand_on` is replaced: no code of the service's runs between two steps of ours. Any
process, any thread.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable

__all__ = ["OWN_NAME", "OwnHandler", "OwnLogger", "logger"]

OWN_NAME = "rpccluster"


class OwnHandler(logging.Handler):
    """A handler of ours: for the lines of a service on the root logger, for ours without it.

    It takes no lock, since what it writes with needs none: gevent's, where native threads log, too, is waited for for
    ever.
    """

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        kept: Any = record.name != OWN_NAME and self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)  # a filter may put another in its place
        return bool(kept)


class OwnLogger(logging.Logger):
    """Never raises, and needs no lock."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._write: Callable[[logging.LogRecord], object] | None = None
        self._own_level = logging.NOTSET
        #: Takes a record to the handlers of others.
        self.hand_on: Callable[[logging.LogRecord], object] = self.show_others

    def write_by(self, write: Callable[[logging.LogRecord], object] | None, level: int = logging.NOTSET) -> None:
        """Write what is of ``level`` or above by ``write``, from now on; None leaves it to `logging`."""
        self._write, self._own_level = write, level

    def isEnabledFor(self, level: int) -> bool:
        return super().isEnabledFor(level) if self._write is None else level >= self._own_level

    def makeRecord(
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Any = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Without the service's factory."""
        return logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)

    def handle(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(BaseException):
            if self._write is not None:
                self._write(record)
            if self._has_others():
                self.hand_on(record)

    def _has_others(self) -> bool:
        return any(not isinstance(handler, OwnHandler) for handler in [*self.handlers, *logging.getLogger().handlers])

    def show_others(self, record: logging.LogRecord) -> None:
        """Let the handlers of others have ``record``, as `logging` is set up. Runs their code."""
        with contextlib.suppress(BaseException):
            if super().isEnabledFor(record.levelno):
                super().handle(logging.makeLogRecord(record.__dict__))


def _made() -> OwnLogger:
    """The one that `logging` knows by our name, made by our class, whatever class it makes others by."""
    theirs = logging.getLoggerClass()
    logging.setLoggerClass(OwnLogger)
    try:
        return logging.getLogger(OWN_NAME)  # type: ignore[return-value]
    finally:
        logging.setLoggerClass(theirs)


#: Every line of ours goes here.
logger = _made()
