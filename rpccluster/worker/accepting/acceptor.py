"""Accepts connections from the shared listeners, in turns. Runs in the worker, on the loop's callbacks.

The lock serves balance, not safety: accept(2) is atomic. So nobody ever waits for it, and a killed, stopped or busy
worker delays a new connection by milliseconds. A worker whose turn it is takes the lock, accepts a connection, counts
it, and looks again, up to `BATCH` times. A worker whose turn it is not, or that is full, stops watching the listeners
for a moment, since they stay readable. One descriptor is kept in reserve, to accept and close a connection that cannot
be served.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import logging
import socket
from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import Any, Callable

from gevent.monkey import get_original

from rpccluster.address import TCPAddress
from rpccluster.ipc.scoreboard import Cell, Scoreboard
from rpccluster.log import logger
from rpccluster.system import READABLE, Reserve
from rpccluster.worker.accepting.lock import AcceptLock
from rpccluster.worker.accepting.turn import Turn, Verdict
from rpccluster.worker.limits import Limits

__all__ = ["Acceptor"]

PAUSE_SECONDS = 0.001  # between two looks while it is another's turn
BATCH = 64  # connections accepted in one callback
MOST_DRAINED = 4096  # connections taken from a listener before it is closed
REST_SECONDS = 0.1  # pause while this worker is full, or after the kernel had no descriptor left

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_close = get_original("os", "close")  # at once: gevent's own waits for the loop
_PlainSocket = get_original("socket", "socket")


class Acceptor:
    """Watches the listeners, and passes accepted sockets to ``serve(socket, peer)``."""

    def __init__(
        self,
        loop: Any,
        listeners: list[socket.socket],
        serve: Callable[..., object],
        scoreboard: Scoreboard,
        row_number: int,
        lock: AcceptLock | None,
        limits: Limits,
        proxied: Sequence[int] = (),
    ) -> None:
        """``serve`` gets a third argument, True, for a connection of the listeners whose places are ``proxied``."""
        self._loop = loop
        self._listeners = listeners  # the assignment's own list: a forked child closes what is in it
        self._serve = serve
        self._proxied = frozenset(listeners[place] for place in proxied)
        self._scoreboard = scoreboard
        self._row = scoreboard.row(row_number)
        self._turn = Turn(scoreboard, row_number)
        self._lock = lock
        self._limits = limits
        self.on_accepted: Callable[[], object] = lambda: None  # called before the loop goes on
        self._is_known_full = False
        self._reserve = Reserve(1)  # lets a connection be accepted in order to close it
        self._watchers = [loop.io(listener.fileno(), READABLE) for listener in listeners]
        # Repeating and started by again(): libev forgets the time of a timer that fires once.
        self._pause = loop.timer(0.0, PAUSE_SECONDS)
        self._rest = loop.timer(0.0, REST_SECONDS)
        self._is_stopped = True
        self._has_ended = False

    def start(self) -> None:
        """Accept from now on."""
        if self._is_stopped:
            self._is_stopped = False
            self._watch()

    def pause(self) -> None:
        """Accept nothing until `start`; the listeners stay open."""
        self._is_stopped = True
        self._unwatch()
        for timer in (self._pause, self._rest):
            timer.stop()

    def add(self, descriptors: list[int]) -> None:
        """Accept at the listeners with these descriptors, too, unless this worker has stopped for good."""
        for descriptor in descriptors:
            if self._has_ended:
                _close(descriptor)
                continue
            listener = _PlainSocket(fileno=descriptor)
            listener.setblocking(False)
            self._listeners.append(listener)
            self._watchers.append(self._loop.io(descriptor, READABLE))
            if not self._is_stopped:
                self._watchers[-1].start(self._on_readable, listener)

    def stop(self, *, drain: bool = False) -> None:
        """Accept nothing more and close this process's copies of the listeners.

        With ``drain`` take the connections that wait first: closing the last copy would reset them.
        """
        self._is_stopped = self._has_ended = True
        for listener in self._listeners if drain else ():
            for _ in range(MOST_DRAINED):
                if self._turn.has_all_connections() or not self._accept(listener):
                    break
        self.on_accepted()
        self._unwatch()
        for timer in (self._pause, self._rest):
            timer.stop()
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        self._watchers = []
        self._reserve.close()

    def _watch(self) -> None:
        self._pause.stop()
        self._rest.stop()
        if not self._is_stopped:
            for watcher, listener in zip(self._watchers, self._listeners):
                watcher.start(self._on_readable, listener)

    def _unwatch(self) -> None:
        for watcher in self._watchers:
            watcher.stop()

    def _on_readable(self, listener: socket.socket) -> None:
        self._row[Cell.ACCEPT_WAKEUPS] += 1
        if self._lock is None:
            self._accept_all(listener)
        else:
            self._accept_in_turn(listener)
        self.on_accepted()

    def _accept_all(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            if self._turn.is_full(monotonic_ns()):
                self._rest_full()
                return
            if not self._accept(listener):
                return

    def _accept_in_turn(self, listener: socket.socket) -> None:
        for taken in range(BATCH):  # then the loop comes back at once
            verdict = self._turn.look(monotonic(), monotonic_ns(), is_burst=taken > 0)
            if verdict is Verdict.FULL:
                self._rest_full()
                return
            if verdict is Verdict.WAIT:
                self._leave_alone(self._pause)
                return
            if not self._accept_locked(listener, verdict):
                return

    def _rest_full(self) -> None:
        """Rest, since this worker is full. If it is full of connections, log that once until it accepts again."""
        most = self._row[Cell.CONNECTION_LIMIT]
        if self._row[Cell.CONNECTIONS] >= most and not self._is_known_full:
            self._is_known_full = True
            self._limits.note(Cell.WORKER_CONNECTIONS, "Leaving connections waiting", f"{most} are open here")
        self._leave_alone(self._rest)

    def _leave_alone(self, timer: Any) -> None:
        """Stop watching the listeners until ``timer`` fires: readable as they are, they would only wake this worker."""
        self._unwatch()
        timer.again(self._watch)

    def _accept_locked(self, listener: socket.socket, verdict: Verdict) -> bool:
        """Accept one connection under the lock. Returns False if none waits, or another worker holds the lock.

        A worker holds the lock for microseconds. One that holds it past patience is stopped, and nobody waits for it.
        """
        assert self._lock is not None
        with self._lock.tried() as is_held:
            if is_held or verdict is Verdict.OUT_OF_TURN:
                return self._accept(listener)
        self._leave_alone(self._pause)
        return False

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection and count it. Returns False if none waits any more."""
        try:
            descriptor, peer = listener._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            self._turn.note_none_waits()
            return False
        except OSError as error:
            self._failed(listener, error)
            return False
        self._scoreboard.count_accept()
        self._row[Cell.ACCEPTED] += 1
        self._is_known_full = False
        sock = _socket.socket(fileno=descriptor)
        sock.setblocking(False)
        if listener in self._proxied:
            self._serve(sock, peer, True)
        else:
            self._serve(sock, peer)
        return True

    def _failed(self, listener: socket.socket, error: OSError) -> None:
        """Rest after a failed accept(2). If no descriptor is left, close the waiting connection by the reserve."""
        self._leave_alone(self._rest)
        if error.errno in _EXHAUSTED:
            self._limits.note(Cell.DESCRIPTORS, f"Refusing {self._refuse(listener)}", str(error), logging.WARNING)
        else:
            logger.error("Cannot accept a connection: %s", error)

    def _refuse(self, listener: socket.socket) -> str:
        """Close the connection that waits. Returns a text that names it."""
        peer = None
        with contextlib.suppress(OSError), self._reserve.lent():
            descriptor, peer = listener._accept()  # type: ignore[attr-defined]
            _close(descriptor)
        return f"the connection of {TCPAddress(*peer[:2])}" if isinstance(peer, tuple) else "a connection"
