"""The pidfile: it admits one instance at a time, by an flock that lives as long as its holder. Runs in the master.

The file is never unlinked or renamed, only rewritten in place under the lock, so a stale file, a reused pid or a
kill -9 never blocks a start. Source: flock(2). If somebody else removes the file, its holder makes it again; until then
a start finds the holder by the file that it has open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from rpccluster.errors import StartError
from rpccluster.system import Deadline
from rpccluster.system.files import open_own

__all__ = ["Pidfile"]

_WAIT_SECONDS = 1.0  # for the holder of the lock to write its pid
_LOOK_SECONDS = 0.02
_MASTER_TITLE = b"rpccluster: master"
_CLOSED = -1
_REMOVED = " (deleted)"  # the kernel adds this to the name of a removed file


class Pidfile:
    """An open pidfile. This process holds its lock, alone or together with a new master."""

    def __init__(self, path: str, descriptor: int, is_single: bool = True) -> None:
        """``descriptor`` already holds the lock: `acquire` took it, or an upgrade has passed it on."""
        self.path = path
        self.descriptor = descriptor
        self.is_single = is_single

    @classmethod
    def acquire(cls, path: str, *, is_single: bool = True) -> Pidfile:
        """Open and lock ``path``. Raises `StartError`, which names the running pid, or says what failed.

        With ``is_single`` false, another holder of the lock is no obstacle.
        """
        descriptor = _open(path)
        try:
            if is_single:
                _lock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, is_single)

    def write(self, pid: int) -> None:
        """Write ``pid`` in place. Raises `StartError` if the disk is full."""
        data = b"%d\n" % pid
        try:
            os.pwrite(self.descriptor, data, 0)
            os.ftruncate(self.descriptor, len(data))
        except OSError as error:
            raise StartError(f"cannot write the pidfile {self.path}: {error.strerror}") from error

    def is_there(self) -> bool:
        """Return whether the path still leads to this file."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False

    def names(self, pid: int) -> bool:
        """Return whether the file holds ``pid`` and nothing else."""
        return os.pread(self.descriptor, 32, 0) == b"%d\n" % pid

    def make_again(self, pid: int) -> None:
        """Make the file at its path again, lock it and write ``pid``. Raises `StartError`; then the old file stays."""
        descriptor = _open(self.path)
        try:
            if self.is_single and not _try_lock(self.path, descriptor):
                raise StartError(f"the process {_read(descriptor)} has locked the file that is there now")
            Pidfile(self.path, descriptor).write(pid)
            os.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Empty the file, because the cluster has ended. Does nothing if this process's copy is closed."""
        if self.descriptor != _CLOSED:
            os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Close this process's copy. Another holder of a copy keeps the lock, which is never released explicitly."""
        if self.descriptor != _CLOSED:
            os.close(self.descriptor)
            self.descriptor = _CLOSED  # the number may be another file's by now


def _open(path: str) -> int:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open_own(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        what_to_do = "set `pidfile` to a path that this user may write"
        raise StartError(f"cannot open the pidfile {path}: {error.strerror}; {what_to_do}") from error


def _lock(path: str, descriptor: int) -> None:
    """Take the lock. Raises `StartError` if another master runs."""
    if not _lock_or_learn(path, descriptor):
        what_to_do = "stop it first, or set another pidfile"
        raise StartError(f"rpccluster already runs with pid {_read(descriptor)} (pidfile {path}); {what_to_do}")
    for pid in _holders_of_a_removed(path, os.fstat(descriptor).st_dev):
        raise StartError(f"rpccluster already runs with pid {pid} (pidfile {path}, which somebody has removed)")


def _lock_or_learn(path: str, descriptor: int) -> bool:
    """Take the lock, or wait until its holder has written its pid or has ended. Returns whether we have it."""
    deadline = Deadline.after(_WAIT_SECONDS)
    while not _try_lock(path, descriptor):
        if _has_open(_read(descriptor), descriptor) or deadline.is_over():
            return False
        time.sleep(_LOOK_SECONDS)  # the loop does not run yet
    return True


def _try_lock(path: str, descriptor: int) -> bool:
    """Try to take the lock. Returns False if another holds it. Raises `StartError` if locking itself fails."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StartError(f"cannot lock the pidfile {path}: {error.strerror}") from error
    return True


def _read(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"


def _has_open(pid: str, descriptor: int) -> bool:
    """Return whether the process ``pid`` has this file open. The lock's holder has; a pid in a stale file has not.

    If this process may not look into the other one, the answer is yes.
    """
    file = os.fstat(descriptor)
    try:
        with os.scandir(f"/proc/{pid}/fd") as links:
            return any(os.path.samestat(file, os.stat(link.path)) for link in links)
    except PermissionError:
        return True
    except OSError:
        return False


def _holders_of_a_removed(path: str, device: int) -> Iterator[str]:
    """Yield the masters that have open a removed file that was named ``path``, on the same file system.

    Leaves out processes that this one may not look into.
    """
    folder, name = os.path.split(path)
    removed = os.path.join(os.path.realpath(folder), name) + _REMOVED
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid != str(os.getpid()) and _is_master(pid) and _has_open_removed(pid, removed, device):
            yield pid


def _is_master(pid: str) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as cmdline:
        return cmdline.read(len(_MASTER_TITLE)) == _MASTER_TITLE
    return False


def _has_open_removed(pid: str, removed: str, device: int) -> bool:
    links: list[str] = []
    with contextlib.suppress(OSError):
        links = os.listdir(f"/proc/{pid}/fd")
    for link in links:
        with contextlib.suppress(OSError):  # it may be closed by now
            link = f"/proc/{pid}/fd/{link}"
            if os.readlink(link) == removed and os.stat(link).st_dev == device:
                return True
    return False
