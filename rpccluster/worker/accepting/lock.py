"""The lock that a worker takes before it accepts. It serves balance alone, so nobody waits for it. In the worker."""

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
        """Hold the lock if it is free right now; yields whether it was.

        If the lock cannot be taken at all, that is logged once, and the worker accepts without it.
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
