"""Opening files in folders that others may write, without being led astray: what a root master needs. Any process.

As root no link is followed, what is there already keeps its owner, and a file of a stranger is refused; only what
was just made is given to whoever is to have it. Decides by what was opened, never by a look before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

__all__ = ["check_owner", "open_own", "umasked"]

_TRIES = 10  # somebody makes and removes the file all the time


def open_own(path: str, flags: int, owner: tuple[int, int] | None = None) -> int:
    """Open ``path`` with mode 0644, made if there is none: then it is ``owner``'s (uid, gid), if this is root.

    Raises OSError.
    """
    if os.geteuid() != 0:
        return os.open(path, flags | os.O_CREAT, 0o644)
    for _ in range(_TRIES):
        try:
            return _open_present(path, flags, owner)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        if owner is not None:
            os.fchown(descriptor, *owner)
        return descriptor
    raise FileExistsError(errno.EEXIST, "it comes and goes", path)


def _open_present(path: str, flags: int, owner: tuple[int, int] | None) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, which root does not follow", path) from None
        raise
    try:
        check_owner(os.fstat(descriptor), path, owner)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_owner(found: os.stat_result, path: str, owner: tuple[int, int] | None) -> None:
    """Raise OSError unless a regular file or a socket belongs to this process's user, or to ``owner``.

    A file of ours with a second name is refused, too: that may be a name in a folder of ours. Devices pass.
    """
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISSOCK(found.st_mode):
        return
    ours = os.geteuid()
    if owner is not None and found.st_uid == owner[0] != ours:
        return
    if found.st_uid != ours:
        also = f" or {owner[0]}" if owner is not None and owner[0] != ours else ""
        raise OSError(errno.EPERM, f"found the owner {found.st_uid}, expected {ours}{also}", path)
    if found.st_nlink > 1:
        raise OSError(errno.EPERM, "it has another name, too: root does not write to such", path)


@contextlib.contextmanager
def umasked(mask: int | None) -> Iterator[None]:
    """Make files under this umask; None leaves the process's own."""
    before = None if mask is None else os.umask(mask)
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)
