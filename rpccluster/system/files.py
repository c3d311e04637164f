"""Opens files in folders that others may write, safely for a master that runs as root; watches files. Any process.

As root it follows no link, leaves existing files their owner, refuses a stranger's file, and gives only newly made
files to their owner. It checks the open file, never the path before.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator

__all__ = ["FileWatch", "FolderWatch", "check_owner", "folders_to", "open_own", "umasked"]

_MOVES = 0x400 | 0x800  # inotify.h: IN_DELETE_SELF, IN_MOVE_SELF
_CHANGES = _MOVES | 0x2 | 0x4  # IN_MODIFY, IN_ATTRIB (a link less, too)
_ENTRIES = _MOVES | 0x8 | 0x40 | 0x80 | 0x100 | 0x200  # IN_CLOSE_WRITE, IN_MOVED_FROM and _TO, IN_CREATE, IN_DELETE
_MOST_STEPS = 1000  # from folder to folder
_EVENT_BYTES = 4096
_TRIES = 10  # another process may make and remove the file all the time


def open_own(path: str, flags: int, owner: tuple[int, int] | None = None) -> int:
    """Open ``path``, or make it with mode 0644; root gives a new file to ``owner`` (uid, gid).

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
    raise FileExistsError(errno.EEXIST, "another process makes and removes it all the time", path)


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

    It also refuses a file with a second name, since somebody may have linked a file of ours there. Devices pass.
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
        raise OSError(errno.EPERM, "it has a second hard link, and root does not write to such a file", path)


@contextlib.contextmanager
def umasked(mask: int | None) -> Iterator[None]:
    """Set the umask during the ``with`` block; None keeps the process's own."""
    before = None if mask is None else os.umask(mask)
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)


class FileWatch:
    """Turns readable when one of the watched files was removed, renamed or changed. Source: inotify(7).

    It watches the files themselves, and whether their folders move, so other files in these folders wake nobody.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        init = getattr(self._library, "inotify_init1", None)
        self._descriptor: int = init(os.O_NONBLOCK | os.O_CLOEXEC) if init is not None else -1

    @property
    def is_open(self) -> bool:
        """Whether it can watch at all; the kernel limits the number of watches of a user."""
        return self._descriptor >= 0

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._descriptor

    def follow(self, paths: Iterable[str]) -> bool:
        """Watch the files that are at ``paths`` now, too. Returns whether all of them are watched."""
        followed = [self._follow(path) for path in paths] if self.is_open else [False]
        return all(followed)

    def _follow(self, path: str) -> bool:
        folder = os.path.dirname(os.path.abspath(path))
        return self._add(folder, _MOVES) >= 0 and self._add(path, _CHANGES) >= 0

    def _add(self, path: str, events: int) -> int:
        """Watch ``path``. Returns the number of the watch; -1 if it cannot be had."""
        number: int = self._library.inotify_add_watch(self._descriptor, os.fsencode(path), events)
        return number

    def _remove(self, number: int) -> None:
        self._library.inotify_rm_watch(self._descriptor, number)  # it may have ended with its folder

    def drain(self) -> None:
        """Drop the events so far."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, _EVENT_BYTES):
                pass

    def close(self) -> None:
        """Stop watching."""
        if self.is_open:
            os.close(self._descriptor)
            self._descriptor = -1


class FolderWatch(FileWatch):
    """Turns readable when a file has come, gone or been closed after writing in one of the watched folders.

    So it does when such a folder is moved or removed, which may end its watch: call `follow` again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._numbers: set[int] = set()

    def follow(self, paths: Iterable[str]) -> bool:
        """Watch the folders ``paths``, and no others. Returns whether all of them are watched."""
        numbers = {self._add(path, _ENTRIES) for path in paths} if self.is_open else {-1}
        for number in self._numbers - numbers:
            self._remove(number)
        self._numbers = numbers - {-1}
        return -1 not in numbers


def folders_to(path: str) -> set[str]:
    """Return the folders in which a change can make ``path`` another file: its own, and that of each link to it.

    Where a folder is not there, the nearest one above is meant.
    """
    found: set[str] = set()
    at, names = "/", os.path.abspath(path).split("/")
    for _ in range(_MOST_STEPS):  # links may go in a circle
        here = os.path.normpath(os.path.join(at, names.pop(0)))  # no link in ``at`` leads elsewhere
        try:
            target = os.readlink(here)
        except OSError:
            if not names or not os.path.lexists(here):
                break
            at = here
        else:
            found.add(at)
            names[:0] = target.split("/")
            at = "/" if target.startswith("/") else at
    return {*found, at}
