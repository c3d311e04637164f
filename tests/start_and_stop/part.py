"""A part of the package as the shared test handles it, and what of this process is open, runs and lies about.

Each part has an adapter of a few lines: how it is made, started and stopped, and in which ways its start can fail.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from rpccluster.testing import wait_until

__all__ = ["Part", "nothing_left"]

SECONDS = 15.0  # for threads and processes that end on their own


class Part:
    """One part. A part that is started by being made has no `make`; what the test needs around it, `prepare` makes."""

    #: Whether `begin` returns before the part has started.
    takes_time: ClassVar[bool] = False
    #: Whether a start and a stop take long, so that each test does few of them.
    is_slow: ClassVar[bool] = False
    #: Whether several threads may start and stop it at once.
    is_for_threads: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        """``folder`` is for files of the part's."""
        self.folder = folder

    def prepare(self) -> None:
        """Make what the part needs around it; that is not looked at."""

    def make(self) -> None:
        """Make the part, without starting it."""

    def start(self) -> None:
        """Start the part, and return when it has started. Raises an Exception if it cannot."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start the part, and return before it has started if that takes time."""
        self.start()

    def end_begun(self) -> None:
        """After a stop: wait for the end of what `begin` has begun, whatever became of it."""

    def stop(self) -> None:
        """Stop the part, whatever state it is in; twice is no error."""
        raise NotImplementedError

    def is_stopped(self) -> bool:
        """Whether the part says that it has stopped."""
        return True

    def clean(self) -> None:
        """Free what `prepare` has made."""

    def failures(self) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
        """Surroundings in which its start fails, or may."""
        return {}


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """What the ``with`` block opens, starts or writes is gone at its end, or soon after it."""
    before = _present(folder)
    yield
    left: set[str] = set()

    def is_gone() -> bool:
        left.clear()
        left.update(_present(folder) - before)
        return not left

    with contextlib.suppress(AssertionError):
        wait_until(is_gone, SECONDS)
    assert not left, sorted(left)


def _present(folder: Path) -> set[str]:
    """Descriptors with what they lead to, threads, processes, sockets and what a pidfile says."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add(f"descriptor {name}: {os.readlink(f'/proc/self/fd/{name}')}")
    alive = sys._current_frames()  # a native thread that has logged stays enumerated when it has ended
    found |= {f"thread {each.name} ({each.ident})" for each in threading.enumerate() if each.ident in alive}
    found |= {f"process {pid}" for pid in _children()}
    found |= {f"socket {path}" for path in folder.rglob("*") if path.is_socket()}
    found |= {f"pidfile {path}" for path in folder.rglob("*.pid") if path.read_text()}
    return found


def _children() -> Iterator[str]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from (task / "children").read_text().split()
