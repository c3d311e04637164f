"""Tries the service for ``--check-config``, in a child process, because an import can do anything."""

from __future__ import annotations

import os
import traceback

from rpccluster.config import Configuration
from rpccluster.errors import EXIT_NO_SERVICE, RPCClusterError
from rpccluster.log import say
from rpccluster.system import Exit

__all__ = ["check_service"]


def check_service(configuration: Configuration) -> int:
    """Load the service in a child, as a worker would. Returns 0, or prints the reason to stderr and returns 4."""
    service = configuration.options.service
    if not service:  # plugins alone
        return 0
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, b"y" if _is_fine(configuration) else b"n")
        finally:
            os._exit(0)
    os.close(write_end)
    answer = os.read(read_end, 1)
    os.close(read_end)
    exit_ = Exit.from_status(*os.waitpid(pid, 0))
    if not answer:  # its exit code proves nothing: the service's own code may have chosen it
        say(f"rpccluster: cannot load the service {service!r}: the process that tried ended with {exit_}")
    return 0 if answer == b"y" else EXIT_NO_SERVICE


def _is_fine(configuration: Configuration) -> bool:
    """Load the service, in the child. Returns whether that worked; prints the reason if it did not."""
    from rpccluster.worker.service.trial import try_service

    try:
        try_service(configuration.options, configuration.settings(1))
    except (RPCClusterError, OSError) as error:
        say(f"rpccluster: {error}")
        return False
    except BaseException:  # the service's own code runs here, properties for instance
        say(f"rpccluster: cannot use the service {configuration.options.service!r}: {traceback.format_exc().rstrip()}")
        return False
    return True
