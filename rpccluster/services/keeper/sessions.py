"""Whose items end with which connection: the sessions of consumers, and their connections. Runs in the keeper.

A session begins with the first get that names it, or with the first get of a connection that names none. It ends when
its last connection has ended. After a restart those that had items have some seconds to come back. Connections that
move to a successor take theirs along: the keeper notes them in memory that outlives it, by the numbers that the system
gives to sockets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Callable

from rpccluster.services.keeper.note import Note
from rpccluster.services.keeper.waiting import Call

__all__ = ["Bound", "Sessions"]

_SESSION_BYTES = 16


class Bound:
    """What belongs to a connection: its sessions, its own among them, and the calls on it that wait for an item."""

    __slots__ = ("calls", "is_half_closed", "on_over", "own", "sessions")

    def __init__(self, on_over: Callable[[Call], object]) -> None:
        """``on_over`` gets calls that are over without an answer of the keeper's."""
        self.on_over = on_over
        self.own: bytes | None = None
        self.sessions: set[bytes] = set()
        self.calls: dict[Call, None] = {}
        self.is_half_closed = False


class Sessions:
    """All sessions and connections; a `rpccluster.worker.connections.context.Follower`."""

    def __init__(
        self,
        note: Note,
        on_ended: Callable[[bytes], object],
        on_left: Callable[[Bound], object],
        on_over: Callable[[Call], object],
    ) -> None:
        """``on_ended`` gets each session that has ended; ``on_left`` each connection whose peer sends nothing more.

        ``on_over`` gets each call that waited and is over without an answer of the keeper's.
        """
        self._on_over = on_over
        self._note = note
        self._on_ended = on_ended
        self._on_left = on_left
        self._bound: dict[Any, Bound] = {}
        self._connections: dict[bytes, int] = {}  # the number of connections of each session
        self._awaited: set[bytes] = set()  # those from before that have not come back

    def bound(self, outbox: Any) -> Bound:
        """Return what belongs to a connection."""
        found = self._bound.get(outbox)
        if found is None:
            found = self._bound[outbox] = Bound(self._on_over)
        return found

    def own(self, bound: Bound) -> bytes:
        """Return the session of a connection itself."""
        if bound.own is None:
            bound.own = os.urandom(_SESSION_BYTES)
            self.bind(bound, bound.own)
        return bound.own

    def bind(self, bound: Bound, session: bytes) -> None:
        """Note that ``session`` has this connection."""
        self._awaited.discard(session)
        if session not in bound.sessions:
            bound.sessions.add(session)
            self._connections[session] = self._connections.get(session, 0) + 1

    # -- connections come and go

    def note_adopted(self, outbox: Any, descriptor: int) -> None:
        """Bind the sessions again that a connection had before it came here."""
        moved = self._note.take(os.fstat(descriptor).st_ino)
        if moved is not None:
            bound = self.bound(outbox)
            bound.own, sessions = moved
            for session in sessions:
                self.bind(bound, session)

    def note_given(self, outbox: Any, descriptor: int) -> None:
        """Note the sessions of a connection for the successor that gets it."""
        bound = self._bound.pop(outbox, None)
        if bound is not None and bound.sessions:
            self._note.add(os.fstat(descriptor).st_ino, bound.own, bound.sessions)

    def note_half_closed(self, outbox: Any) -> None:
        """Let no call wait for a peer that sends nothing more: it may have gone, with items that others could have."""
        bound = self._bound.get(outbox)
        if bound is not None:
            bound.is_half_closed = True
            self._on_left(bound)

    def note_closed(self, outbox: Any) -> None:
        """End the sessions whose last connection this was."""
        bound = self._bound.pop(outbox, None)
        if bound is None:
            return
        bound.is_half_closed = True
        self._on_left(bound)
        for session in bound.sessions:
            self._connections[session] -= 1
            if not self._connections[session]:
                del self._connections[session]
                self._on_ended(session)

    # -- a restart

    def expect(self, sessions: Iterable[bytes]) -> None:
        """Expect ``sessions``, which have items from before, to come back."""
        self._awaited.update(sessions)

    def give_up(self) -> list[bytes]:
        """Expect none any more. Returns those that have not come back."""
        missing = sorted(self._awaited)
        self._awaited.clear()
        return missing
