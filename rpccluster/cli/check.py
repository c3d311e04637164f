"""Trying the service in a child process, for ``--check-config``: its import can do anything."""

from __future__ import annotations

import os
import traceback

from rpccluster.config import Options
from rpccluster.errors import EXIT_NO_SERVICE, RPCClusterError
from rpccluster.log import say

__all__ = ["check_service"]


def check_service(options: Options) -> int:
    """Load the service in a child as a worker would. Returns 0, or 4 after the reason was printed to stderr."""
    pid = os.fork()
    if pid == 0:
        code = EXIT_NO_SERVICE
        try:
            code = _try(options)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        say(f"rpccluster: loading the service {options.service!r} ended with signal {os.WTERMSIG(status)}")
    return 0 if status == 0 else EXIT_NO_SERVICE


def _try(options: Options) -> int:
    from rpccluster.worker.trial import try_service

    try:
        try_service(options)
    except (RPCClusterError, OSError) as error:
        say(f"rpccluster: {error}")
        return EXIT_NO_SERVICE
    except BaseException:  # the service's own code runs here, properties for instance
        say(f"rpccluster: the service {options.service!r} cannot be used: {traceback.format_exc().rstrip()}")
        return EXIT_NO_SERVICE
    return 0
