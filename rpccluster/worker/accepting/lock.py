"""The lock that workers take before they accept: for balance, so that nobody ever waits for it. Runs in the worker."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from rpccluster.log import logger

__all__ = ["AcceptLock"]


class AcceptLock:
    """A POSIX lock among the workers; the kernel drops it when its holder dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._has_failed = False

    @contextlib.contextmanager
    def tried(self) -> Iterator[bool]:
        """Hold the lock if it is free right now; tells whether it was.

        A lock that cannot be had at all is told once and done without: it is for balance alone.
        """
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another has it, fcntl(2)
            yield False
        except OSError as error:
            if not self._has_failed:
                logger.error("Accepting without the accept lock: %s", error)
            self._has_failed = True
            yield True
        else:
            try:
                yield True
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
