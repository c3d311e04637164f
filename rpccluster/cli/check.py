"""Trying the service in a child process, for ``--check-config``: its import can do anything."""

from __future__ import annotations

import os

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
    from gevent import monkey

    monkey.patch_all()
    from rpccluster.worker.dispatch import Registry
    from rpccluster.worker.loading import load_service

    try:
        if options.chdir:
            os.chdir(options.chdir)
        Registry(load_service(options.service, options.pythonpath), 0, lambda function, seconds: function)
    except (RPCClusterError, OSError) as error:
        say(f"rpccluster: {error}")
        return EXIT_NO_SERVICE
    return 0
