"""Replaces the content of a file at one stroke: at any instant, also after a crash, it is the old one or the new one.

The new content stands in a file beside it, ``.NAME.new``, until it is renamed; one that a killed process has left is
used again. Any process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

__all__ = ["put_content", "replace_content", "sync_folder"]

_TRIES = 10  # another process may finish its own replacement each time
_PIECE = 1 << 20


def replace_content(path: str, expected: bytes, new: bytes) -> None:
    """Replace the content ``expected`` of the file at ``path`` by ``new``, and have the disk keep it.

    Mode, owner and extended attributes stay; so does a symbolic link, whose target is replaced. Raises OSError, and
    has changed nothing then, unless the disk fails in the last step, which flushes the folder.
    """
    real = os.path.realpath(path)
    present = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(present, expected)
        beside = _open_beside(real)
        try:
            _fill(beside, present, new)
            _check_name(present, real)
            os.rename(_name_beside(real), real)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(_name_beside(real))  # its lock keeps it ours
            raise
        finally:
            os.close(beside)
    finally:
        os.close(present)
    sync_folder(os.path.dirname(real))


def put_content(path: str, new: bytes) -> None:
    """Make ``new`` the content of the file at ``path``, which this user alone may read, and have the disk keep it.

    The file need not be there. Raises OSError, as `replace_content` does.
    """
    real = os.path.realpath(path)
    beside = _open_beside(real)
    try:
        _write(beside, new)
        os.fsync(beside)
        os.rename(_name_beside(real), real)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(_name_beside(real))
        raise
    finally:
        os.close(beside)
    sync_folder(os.path.dirname(real))


def _check(present: int, expected: bytes) -> None:
    status = os.fstat(present)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if status.st_nlink > 1:
        raise OSError(errno.EMLINK, "it has a second hard link, which would keep the old content")
    if status.st_size != len(expected) or os.pread(present, len(expected) + 1, 0) != expected:
        raise OSError(errno.ESTALE, "it has changed since it was read")


def _check_name(present: int, real: str) -> None:
    """Raise OSError if another file has the name by now."""
    if not os.path.samestat(os.fstat(present), os.stat(real, follow_symlinks=False)):
        raise OSError(errno.ESTALE, "another file has taken its place since it was read")


def _name_beside(real: str) -> str:
    folder, name = os.path.split(real)
    return os.path.join(folder, f".{name}.new")


def _open_beside(real: str) -> int:
    """Open and lock the file beside ``real``. A lock ends with its process; the file may stay."""
    name = _name_beside(real)
    for _ in range(_TRIES):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
                raise OSError(errno.EEXIST, f"the file {name!r} is in the way")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, name):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise OSError(errno.EBUSY, "another process is writing it") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was renamed between open and lock
    raise OSError(errno.EBUSY, "other processes write it all the time")


def _is_named(descriptor: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(name, follow_symlinks=False))
    return False


def _fill(beside: int, present: int, new: bytes) -> None:
    """Write ``new``, with mode, owner and attributes of the ``present`` file, to the disk."""
    _write(beside, new)
    status, own = os.fstat(present), os.fstat(beside)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(beside, status.st_uid, status.st_gid)
    os.fchmod(beside, stat.S_IMODE(status.st_mode))  # after the owner, whose change may clear bits of it
    _copy_attributes(present, beside)
    os.fsync(beside)


def _write(beside: int, new: bytes) -> None:
    os.fchmod(beside, 0o600)
    os.ftruncate(beside, 0)
    view = memoryview(new)
    while view:
        view = view[os.write(beside, view[:_PIECE]) :]


def _copy_attributes(present: int, beside: int) -> None:
    """Copy the extended attributes, an access list among them."""
    try:
        names = os.listxattr(present)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS):
            raise
        names = []
    kept = os.listxattr(beside) if names else []
    for name in names:
        value = os.getxattr(present, name)
        if name not in kept or os.getxattr(beside, name) != value:
            os.setxattr(beside, name, value)


def sync_folder(folder: str) -> None:
    """Have the disk keep the entries of ``folder``. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such flush
            raise
    finally:
        os.close(descriptor)
