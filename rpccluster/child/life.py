"""The life of a forked child: prepare, load, run, end. Runs in the child.

Knows no kind: it is given the function that loads the kind's code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import NoReturn

from rpccluster import system
from rpccluster.child.assignment import Assignment, Load
from rpccluster.child.prepare import prepare
from rpccluster.errors import RPCClusterError
from rpccluster.failure import error_text
from rpccluster.ipc.messages import BootFailed

__all__ = ["EXIT_BOOT_FAILED", "EXIT_CRASHED", "live", "tell_boot_failed"]

EXIT_CRASHED = 1
EXIT_BOOT_FAILED = 3

_LONGEST_REASON = 20_000


def live(assignment: Assignment, load: Load) -> NoReturn:
    """Make a newly forked process the child that ``assignment`` describes, and end it, whatever happens."""
    code = EXIT_CRASHED
    try:
        system.die_with_parent(assignment.master_pid)
        system.keep_out_of_collections()  # the collector would copy all inherited memory
        code = _live(assignment, load)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            assignment.logs.drain()
        os._exit(code)


def _live(assignment: Assignment, load: Load) -> int:
    try:
        run = prepare(assignment, load)
    except BaseException as error:
        return tell_boot_failed(assignment, error)
    return run()


def tell_boot_failed(assignment: Assignment, error: BaseException) -> int:
    """Tell the master why this child cannot boot. Returns the exit code to end with."""
    if isinstance(error, RPCClusterError):  # its text is complete
        failed = BootFailed("service", str(error)[:_LONGEST_REASON])
    else:
        reason = "".join(
            [f"{error_text(error)}\n", *traceback.format_exception(type(error), error, error.__traceback__)]
        )
        failed = BootFailed("worker", reason.rstrip()[:_LONGEST_REASON])
    assignment.channel.send(failed)
    return EXIT_BOOT_FAILED
