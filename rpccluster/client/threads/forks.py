"""Whether this process is a copy of the one that made its clients, and what they let go of then.

Python's own forks tell us; those of a C library, such as uWSGI's master, do not. So each call looks at a byte that
the kernel wipes in a copy (MADV_WIPEONFORK, since Linux 4.14). That takes 20 ns, a look at os.getpid() 180.
"""

from __future__ import annotations

import _thread
import contextlib
import mmap
import os
import weakref
from typing import Any, Protocol

__all__ = ["MARK", "let_go_after", "notice_fork"]

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK, which `mmap` does not name


class _Holder(Protocol):
    def _after_fork(self) -> None:
        """Let go of what is the parent's, without a trace of it on the wire."""


class _Process:
    """The same by process ids, where the kernel wipes nothing."""

    def __init__(self) -> None:
        self._id = 0

    def __getitem__(self, _: int) -> bool:
        return self._id == os.getpid()

    def __setitem__(self, _: int, __: int) -> None:
        self._id = os.getpid()


def _make_mark() -> Any:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
        return page
    return _Process()


#: ``MARK[0]`` is true unless this process is a copy whose clients still hold what is the parent's.
MARK: Any = _make_mark()
MARK[0] = 1
_holders: weakref.WeakSet[_Holder] = weakref.WeakSet()
_lock = _thread.RLock()


def let_go_after(holder: _Holder) -> None:
    """Have it let go of its parent's things in every copy of this process."""
    _holders.add(holder)


def notice_fork() -> None:
    """This process is a copy: have all let go, once."""
    with _lock:
        if not MARK[0]:
            for holder in list(_holders):
                holder._after_fork()
            MARK[0] = 1


def _after_fork_in_child() -> None:
    global _lock
    _lock = _thread.RLock()  # the old one may be held by a thread that is not in this process
    notice_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
