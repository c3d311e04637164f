"""Tries the service and the plugins' settings for ``--check-config``, in child processes: an import can do anything."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from typing import Callable

from rpccluster.config import Configuration
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import EXIT_NO_SERVICE, RPCClusterError
from rpccluster.log import say
from rpccluster.system import Exit

__all__ = ["check_code"]


def check_code(configuration: Configuration) -> int:
    """Load the service as a worker would, and plugins as far as settings concern them.

    Returns 0, or prints the reasons to stderr and returns 4.
    """
    codes = [_check(name, attempt) for name, attempt in _attempts(configuration)]
    return max(codes, default=0)


def _attempts(configuration: Configuration) -> Iterator[tuple[str, Callable[[], None]]]:
    options, given = configuration.options, configuration.settings(1)
    if options.service:

        def try_service() -> None:
            from rpccluster.worker.service import trial

            trial.try_service(options, given)

        yield f"the service {options.service!r}", try_service
    for header, section in configuration.others.items():
        if isinstance(section, PluginOptions) and section.run and given.texts:

            def try_settings(section: PluginOptions = section) -> None:
                from rpccluster.plugin import trial

                trial.try_settings(section, given)

            yield f"the function {section.run!r} of [{header}]", try_settings


def _check(name: str, attempt: Callable[[], None]) -> int:
    """Attempt what proves that ``name`` is fine, in a child. Returns 0, or prints the reason and returns 4."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, b"y" if _is_fine(name, attempt) else b"n")
        finally:
            os._exit(0)
    os.close(write_end)
    answer = os.read(read_end, 1)
    os.close(read_end)
    exit_ = Exit.from_status(*os.waitpid(pid, 0))
    if not answer:  # its exit code proves nothing: the service's own code may have chosen it
        say(f"rpccluster: cannot load {name}: the process that tried ended with {exit_}")
    return 0 if answer == b"y" else EXIT_NO_SERVICE


def _is_fine(name: str, attempt: Callable[[], None]) -> bool:
    """Make the attempt, in the child. Returns whether that worked; prints the reason if it did not."""
    try:
        attempt()
    except (RPCClusterError, OSError) as error:
        say(f"rpccluster: {error}")
        return False
    except BaseException:  # the service's own code runs here, properties for instance
        say(f"rpccluster: cannot use {name}: {traceback.format_exc().rstrip()}")
        return False
    return True
