"""The log: the form of its lines, its files, and a logger that works whatever a service does to `logging`.

No process waits for its log, and no text from outside can forge a line. Any process.
"""

from __future__ import annotations

from rpccluster.log.files import LogFiles
from rpccluster.log.handler import LEVELS, set_level, set_up_logging
from rpccluster.log.lines import escaped, set_format
from rpccluster.log.outlet import say
from rpccluster.log.own_logger import logger

__all__ = ["LEVELS", "LogFiles", "escaped", "logger", "say", "set_format", "set_level", "set_up_logging"]
