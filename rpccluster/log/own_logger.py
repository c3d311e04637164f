"""The logger of rpccluster's own lines, which works whatever a service does to `logging`.

A service may replace all handlers, disable loggers, set levels, and add handlers that raise or wait. So this logger
first writes a line itself, then passes it to the service's handlers, for which `logging` stays as the service has set
it up. A worker replaces `OwnLogger.hand_on`, so that no code of the service runs between two steps of the worker's own.
Any process, any thread.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable

__all__ = ["OWN_NAME", "OwnHandler", "OwnLogger", "logger"]

OWN_NAME = "rpccluster"


class OwnHandler(logging.Handler):
    """A handler of rpccluster's own. On the root logger it writes the service's lines; ours do not need it.

    It takes no lock, since its outlet needs none: with gevent's lock, native threads that log could wait for ever.
    """

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        kept: Any = record.name != OWN_NAME and self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)  # a filter may return another record
        return bool(kept)


class OwnLogger(logging.Logger):
    """Logs rpccluster's own lines. It never raises, and needs no lock."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._write: Callable[[logging.LogRecord], object] | None = None
        self.own_level = logging.NOTSET
        #: Passes a record to the handlers of others.
        self.hand_on: Callable[[logging.LogRecord], object] = self.show_others

    def write_by(self, write: Callable[[logging.LogRecord], object] | None, level: int = logging.NOTSET) -> None:
        """Write lines of ``level`` or above with ``write`` from now on; None leaves them to `logging`."""
        self._write, self.own_level = write, level

    def isEnabledFor(self, level: int) -> bool:
        return super().isEnabledFor(level) if self._write is None else level >= self.own_level

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
        """Make a record without the service's record factory."""
        return logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)

    def handle(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(BaseException):
            if self._write is not None:
                self._write(record)
            if self._has_others():
                self.hand_on(record)

    def _has_others(self) -> bool:
        return bool([each for each in (*self.handlers, *logging.root.handlers) if not isinstance(each, OwnHandler)])

    def show_others(self, record: logging.LogRecord) -> None:
        """Pass ``record`` to the handlers of others, as `logging` is set up. Runs their code."""
        with contextlib.suppress(BaseException):
            if super().isEnabledFor(record.levelno):
                super().handle(logging.makeLogRecord(record.__dict__))


def _made() -> OwnLogger:
    """Register our logger with `logging`, of our class, whatever class a service has set."""
    theirs = logging.getLoggerClass()
    logging.setLoggerClass(OwnLogger)
    try:
        return logging.getLogger(OWN_NAME)  # type: ignore[return-value]
    finally:
        logging.setLoggerClass(theirs)


#: Every line of rpccluster's own goes through this logger.
logger = _made()
