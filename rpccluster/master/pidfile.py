"""The pidfile: one instance at a time, by an flock that lives as long as its holder. Runs in the master.

The file is never unlinked nor renamed, only rewritten in place under the lock: so a stale file, a reused pid
or a kill -9 never block a start. Source: flock(2).
"""

from __future__ import annotations

import fcntl
import os
import time

from rpccluster.errors import StartError
from rpccluster.system import Deadline

__all__ = ["Pidfile"]

_WAIT_SECONDS = 1.0  # for the holder to write its pid
_LOOK_SECONDS = 0.02


class Pidfile:
    """An open pidfile whose lock this process, or with it its successor, holds."""

    def __init__(self, path: str, descriptor: int) -> None:
        """Take over a descriptor that holds the lock already: inherited in an upgrade."""
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, path: str, *, is_single: bool = True) -> Pidfile:
        """Open and lock ``path``. Raises `StartError` that names the pid that runs, or says why not.

        With ``is_single`` false another holder is no obstacle.
        """
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartError(f"cannot open the pidfile {path}: {error.strerror}") from error
        if is_single and not _lock_or_learn(descriptor):
            pid = _read(descriptor)
            os.close(descriptor)
            raise StartError(f"rpccluster already runs with pid {pid} (pidfile {path})")
        return cls(path, descriptor)

    def write(self, pid: int) -> None:
        """Write ``pid`` in place. Raises `StartError` if the disk is full."""
        data = b"%d\n" % pid
        try:
            os.pwrite(self.descriptor, data, 0)
        except OSError as error:
            raise StartError(f"cannot write the pidfile {self.path}: {error.strerror}") from error
        os.ftruncate(self.descriptor, len(data))

    def clear(self) -> None:
        """Empty the file: nobody runs any more."""
        os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Close this process's copy. The lock stays with whoever else holds one; it is never released by hand."""
        os.close(self.descriptor)


def _lock_or_learn(descriptor: int) -> bool:
    """Take the lock; if another holds it, wait until it has written its pid or is gone. Returns whether we have it."""
    deadline = Deadline.after(_WAIT_SECONDS)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if _has_open(_read(descriptor), descriptor) or deadline.is_over():
                return False
        time.sleep(_LOOK_SECONDS)  # before there is a loop


def _read(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"


def _has_open(pid: str, descriptor: int) -> bool:
    """Whether the process has this file open, as the lock's holder does; what a stale file names has not.

    A process that may not be looked into passes.
    """
    file = os.fstat(descriptor)
    try:
        with os.scandir(f"/proc/{pid}/fd") as links:
            return any(os.path.samestat(file, os.stat(link.path)) for link in links)
    except PermissionError:
        return True
    except OSError:
        return False
