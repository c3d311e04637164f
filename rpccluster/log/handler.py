"""Sends a process's logging to its log, rpccluster's lines and the service's, each in one write. Any process."""

from __future__ import annotations

import logging

from rpccluster.failure import error_text
from rpccluster.log.files import LogFiles
from rpccluster.log.lines import formatter, own_record
from rpccluster.log.outlet import Outlet
from rpccluster.log.own_logger import OwnHandler, logger

__all__ = ["LEVELS", "DescriptorHandler", "set_level", "set_up_logging"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class DescriptorHandler(OwnHandler):
    """Writes each line with one write(2), so that lines of several processes never mix."""

    def __init__(self, outlet: Outlet, form: logging.Formatter) -> None:
        super().__init__()
        self._outlet = outlet
        self.setFormatter(form)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # the arguments do not fit the message: log that, and go on
            told = f"a log call failed in {record.pathname}, line {record.lineno}: {error_text(error)}"
            line = self.format(own_record(logging.ERROR, told))
        # indent the further lines of a record, so that none passes for a record of its own
        self._outlet.write((line.replace("\n", "\n  ") + "\n").encode("utf-8", "backslashreplace"))


def set_up_logging(logs: LogFiles, level: str, form: logging.Formatter = formatter) -> None:
    """Send all logging of this process, also the service's, to the log, in the given form."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, DescriptorHandler):
            root.removeHandler(handler)
    handler = DescriptorHandler(logs.outlet, form)
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    logger.write_by(handler.emit, LEVELS[level])
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """Log lines of ``level`` or above from now on."""
    logging.getLogger().setLevel(LEVELS[level])
    logger.own_level = LEVELS[level]
