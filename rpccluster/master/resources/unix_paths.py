"""The path of a Unix socket: bound safely, told from another's, unlinked only if it is ours. Runs in the master.

What a path leads to is known by its mark, device and inode: as long as the socket is open the kernel gives that inode
to no other. A path that somebody else has taken since is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from rpccluster.system.files import check_owner, umasked
from rpccluster.system.identity import Identity

__all__ = ["Mark", "bind_unix", "mark_at", "set_mode", "unlink_ours"]

#: Device and inode of a socket's path.
Mark = tuple[int, int]


def mark_at(path: str) -> Mark | None:
    """The mark of the socket at ``path``, None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def bind_unix(path: str, mode: int, owner: Identity | None) -> tuple[socket.socket, Mark]:
    """A socket bound there, with the right mode from the first moment on: connect(2) looks at it, umask(2) sets it.

    Raises OSError with nothing left behind.
    """
    _clear_stale(path, owner)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mark = None
    try:
        with umasked(0o777 & ~mode):
            sock.bind(path)
        mark = mark_at(path)  # first: what fails from here on, for want of a descriptor, too, is undone by it
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
    """Change the permissions of the socket at ``path``, if it is still the one of that mark."""
    with contextlib.suppress(OSError), _held(path) as (handle, found):
        if found == mark:
            os.chmod(handle, mode)


def unlink_ours(path: str, mark: Mark | None) -> None:
    """Unlink ``path`` if the socket of that mark is still there."""
    with contextlib.suppress(OSError):
        if mark is not None and mark_at(path) == mark:
            os.unlink(path)


@contextlib.contextmanager
def _held(path: str) -> Iterator[tuple[str, Mark]]:
    """The socket at ``path`` itself, by a name that nobody can lead elsewhere meanwhile, and its mark."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.EEXIST, "it is no socket any more", path)
        yield f"/proc/self/fd/{descriptor}", (found.st_dev, found.st_ino)
    finally:
        os.close(descriptor)


def _clear_stale(path: str, owner: Identity | None) -> None:
    """Nobody may answer at ``path``. Raises OSError if somebody does, if it is no socket, or a stranger's."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # then it is decided at once: a backlog that is full is EAGAIN, unix(7)
        try:
            probe.connect(path)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            check_owner(found, path, (owner.uid, owner.gid) if owner else None)
            unlink_ours(path, (found.st_dev, found.st_ino))
            return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
