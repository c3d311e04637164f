"""The log: the form of its lines, its files, and a logger whose lines come whatever a service does to `logging`.

Nobody waits for a log, and no text from outside can harm it. Any process.
"""

from __future__ import annotations

from rpccluster.log.files import LogFiles
from rpccluster.log.handler import LEVELS, set_up_logging
from rpccluster.log.lines import escaped
from rpccluster.log.outlet import say
from rpccluster.log.own_logger import logger

__all__ = ["LEVELS", "LogFiles", "escaped", "logger", "say", "set_up_logging"]
