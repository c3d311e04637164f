"""The path of a Unix socket: binds it safely, and unlinks it only if it still leads to our socket. Runs in the master.

A socket is known by its mark, device and inode: as long as the socket is open the kernel gives that inode to no other
file. A path that somebody else has taken since is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from rpccluster.system import check_listening
from rpccluster.system.files import check_owner, umasked
from rpccluster.system.processes.identity import Identity

__all__ = ["Mark", "bind_unix", "mark_at", "set_mode", "unlink_ours"]

_O_PATH = getattr(os, "O_PATH", 0o10000000)  # PyPy 7.3.11 lacks the name

#: Device and inode of the file at a socket's path.
Mark = tuple[int, int]


def mark_at(path: str) -> Mark | None:
    """Return the mark of the socket at ``path``; None if there is no socket."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def bind_unix(path: str, mode: int, owner: Identity | None) -> tuple[socket.socket, Mark]:
    """Bind a socket to ``path``, with the right mode from the first moment on, since connect(2) checks it.

    Raises OSError and leaves nothing behind then.
    """
    _clear_stale(path, owner)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mark = None
    try:
        with umasked(0o777 & ~mode):
            sock.bind(path)
        mark = mark_at(path)  # taken first: it undoes whatever fails from here on, also for lack of a descriptor
        with _held(path) as (handle, held):
            mark = held
            if owner is not None and os.geteuid() == 0:
                os.chown(handle, owner.uid, owner.gid)
    except BaseException:
        unlink_ours(path, mark)
        sock.close()
        raise
    return sock, mark


def set_mode(path: str, mark: Mark | None, mode: int) -> None:
    """Change the permissions of the socket at ``path``, if it still has ``mark``."""
    with contextlib.suppress(OSError), _held(path) as (handle, found):
        if found == mark:
            os.chmod(handle, mode)


def unlink_ours(path: str, mark: Mark | None) -> None:
    """Unlink ``path`` if it still leads to the socket with ``mark``."""
    with contextlib.suppress(OSError):
        if mark is not None and mark_at(path) == mark:
            os.unlink(path)


@contextlib.contextmanager
def _held(path: str) -> Iterator[tuple[str, Mark]]:
    """Yield a name of the socket at ``path`` that nobody can redirect meanwhile, and its mark."""
    descriptor = os.open(path, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.EEXIST, "the path no longer leads to a socket", path)
        yield f"/proc/self/fd/{descriptor}", (found.st_dev, found.st_ino)
    finally:
        os.close(descriptor)


def _clear_stale(path: str, owner: Identity | None) -> None:
    """Unlink a stale socket at ``path``. Raises OSError if one answers, is a stranger's, or is another kind of file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    try:
        check_listening(path)
    except ConnectionRefusedError:
        check_owner(found, path, (owner.uid, owner.gid) if owner else None)
        unlink_ours(path, (found.st_dev, found.st_ino))
        return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
