"""Starts the warden, and starts it again when somebody has killed it. Runs in the master.

`rpccluster.child.warden` is the process. This module owns the socket whose end tells each of the two that the other one
has ended, and the table of the process groups that the warden then kills.
"""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial
from typing import Callable, Protocol

from rpccluster.child.warden import FAREWELL, Post, keep_watch
from rpccluster.config.sections.cluster import Options
from rpccluster.ipc.group_table import GroupTable
from rpccluster.log import LogFiles, logger
from rpccluster.system import MSG_NOSIGNAL, System

__all__ = ["Warden"]

RETRY_SECONDS = 1.0  # from one start to the next
END_SECONDS = 5.0  # that the master waits at its end for the warden's


class Loop(Protocol):
    """The master's loop, as this module needs it."""

    def watch(self, source: int, on_readable: Callable[[], None]) -> None: ...

    def unwatch(self, source: int) -> None: ...


class Warden:
    """The warden of one master, if it is started. ``groups`` is the table to write; ``pid`` is 0 if there is none."""

    def __init__(self, system: System, options: Options, logs: LogFiles) -> None:
        self._system = system
        self.groups = GroupTable()
        self._title = f"rpccluster: warden [{options.proc_name}]"
        self._logs = logs
        self._has_output = not options.daemonize and not logs.is_file
        self._line: socket.socket | None = None
        self._loop: Loop | None = None
        self._started_at = 0.0
        self.pid = 0
        self.wake_at = float("inf")

    def start(self) -> None:
        """Fork the warden. If that fails, it is logged, and tried again in `turn`."""
        self._started_at = self._system.monotonic()
        ends: list[socket.socket] = []
        try:
            ends += socket.socketpair()
            self.pid = self._fork(ends[1])
            self._line = ends.pop(0)
            self._watch()
        except OSError as error:
            logger.error("Cannot start the warden: %s", error)
            self._close()
            self.wake_at = self._started_at + RETRY_SECONDS
        finally:
            for end in ends:
                end.close()

    def _fork(self, line: socket.socket) -> int:
        post = Post(os.getpid(), self._title, line, self.groups, self._logs, self._has_output)
        with self.groups.shared():
            return self._system.spawn(partial(keep_watch, post))

    def _close(self) -> None:
        if self._line is not None:
            if self._loop is not None:
                self._loop.unwatch(self._line.fileno())
            self._line.close()
        self._line, self.pid = None, 0

    def follow(self, loop: Loop) -> None:
        """Notice by ``loop``, from now on, if the warden ends."""
        self._loop = loop
        self._watch()

    def _watch(self) -> None:
        if self._loop is not None and self._line is not None:
            self._loop.watch(self._line.fileno(), self._note_end)

    def _note_end(self) -> None:
        logger.error("The warden (pid: %d) has ended: starting another one", self.pid)
        self._close()
        self.wake_at = max(self._system.monotonic(), self._started_at + RETRY_SECONDS)

    def turn(self, now: float) -> None:
        """Start a warden if there should be one."""
        if now >= self.wake_at:
            self.wake_at = float("inf")
            self.start()

    def end(self) -> None:
        """Let the warden kill what is left of the children, and end; return when it has."""
        if self._line is None:
            return
        with contextlib.suppress(OSError):
            self._line.send(FAREWELL, MSG_NOSIGNAL)
            self._line.shutdown(socket.SHUT_WR)
            self._line.settimeout(END_SECONDS)
            self._line.recv(1)  # end-of-file
            self._system.wait(self.pid)
        self._close()
