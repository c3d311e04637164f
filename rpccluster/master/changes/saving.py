"""Writes files for the master's loop, which must not wait for a disk: in a process of its own. Runs in the master.

At most one write is under way. What it replaces is the old content or the new one at any instant
(`rpccluster.system.replacing`), also if the writing process is killed; then another one tries again, once.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Protocol

from rpccluster.child.aside import work_aside
from rpccluster.config.changes.writing import Rewriting
from rpccluster.master.history import History
from rpccluster.master.loop import Loop
from rpccluster.system import System
from rpccluster.system.processes.process import Work
from rpccluster.system.replacing import put_content, replace_content

__all__ = ["Saver", "Saving", "recording", "rewritten"]

MOST_TRIES = 2
LONGEST_SECONDS = 30.0  # that a disk may take
_RECEIVE_BYTES = 65_536
_NEVER = float("inf")


def rewritten(rewriting: Rewriting) -> Work:
    """Return the work that changes the configuration's file."""

    def work() -> str:
        try:
            replace_content(rewriting.path, rewriting.old, rewriting.new)
        except OSError as error:
            if error.errno == errno.ESTALE and _has(rewriting.path, rewriting.new):
                return ""  # by a process that was killed before it could tell
            return f"cannot write {rewriting.path}: {error.strerror}"
        return ""

    return work


def _has(path: str, content: bytes) -> bool:
    with open(path, "rb") as opened:
        return opened.read(len(content) + 1) == content


def recording(history: History) -> Work:
    """Return the work that writes the history's file."""
    path, content = history.path, history.encoded()
    assert path is not None

    def work() -> str:
        try:
            put_content(path, content)
        except OSError as error:
            return f"cannot write {path}: {error.strerror}"
        return ""

    return work


class Saver(Protocol):
    """What does one write at a time; ``failure`` says why the last one failed, and is empty if it went well."""

    failure: str

    @property
    def is_under_way(self) -> bool: ...

    def begin(self, work: Work) -> None: ...


class Saving:
    """The writes of one master; ``pid`` is the process of the last one.

    ``wake_at`` is when `turn` must be called at the latest (monotonic seconds).
    """

    def __init__(self, operating_system: System, loop: Loop) -> None:
        self._system = operating_system
        self._loop = loop
        self._work: Work | None = None
        self._tries = 0
        self.pid = 0
        self._descriptor = -1
        self._told = b""
        self.failure = ""
        self.wake_at = _NEVER

    @property
    def is_under_way(self) -> bool:
        """Whether the last write has not ended."""
        return self._descriptor >= 0

    def begin(self, work: Work) -> None:
        """Do ``work``, which returns why it failed, in another process; an empty text means that it went well."""
        self.close()  # of a change that was given up
        self._work, self._tries = work, MOST_TRIES
        self._begin()

    def _begin(self) -> None:
        work = self._work
        assert work is not None
        self.failure, self._told, self._tries = "", b"", self._tries - 1
        try:
            self.pid, self._descriptor = self._system.begin_aside(work, work_aside)
        except OSError as error:
            self.failure = f"cannot start a process that writes: {error.strerror}"
            return
        self.wake_at = self._system.monotonic() + LONGEST_SECONDS
        self._loop.watch(self._descriptor, self._read)

    def _read(self) -> None:
        data = os.read(self._descriptor, _RECEIVE_BYTES)
        self._told += data
        if data:
            return
        is_whole = self._told.endswith(b"\n")
        self._end(self._told.decode(errors="replace").strip() if is_whole else "the process that writes was killed")
        if not is_whole and self._tries:
            self._system.wait(self.pid)  # its end of the pipe is closed before its lock of the file
            self._begin()

    def turn(self) -> None:
        """Kill a write that takes too long."""
        if self._system.monotonic() >= self.wake_at:
            self._system.kill(self.pid, signal.SIGKILL)
            self._end(f"the disk has not taken it within {LONGEST_SECONDS:g} s")

    def close(self) -> None:
        """Let the write under way go on, which nobody waits for any more."""
        if self.is_under_way:
            self._end("the master ends")

    def _end(self, failure: str) -> None:
        self._loop.unwatch(self._descriptor)
        os.close(self._descriptor)
        self._descriptor, self.failure, self.wake_at = -1, failure, _NEVER
