"""The sessions of one program with a keeper: in each, one call at a time, numbered.

A keeper remembers the last number of a session, and answers a repeat with what it has answered before. So a session
must not have two numbered calls at once: each call takes a *lane*, which is a session, and as many threads as call at
once have as many. Lanes are for puts or for gets, since those have numbers of their own. Owns no call; any thread may
take and give back, by single steps of a deque.

    free ── take() ──→ taken ── give_back() ──→ free           it was answered
                             ── leave() ──────→ unfinished     a get was not: its items may wait for this lane
                             ── (dropped) ────→                a put was not: its number is never used again
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Callable

__all__ = ["Lane", "Lanes"]

SESSION_BYTES = 16


class Lane:
    """A session. ``number`` is that of its last call, ``count`` the most items that its last get may bring.

    ``numbered`` are the options of a call that say so much; they are the next call's once this one has ended.
    ``connection`` is one over which the keeper has heard of the session; an older one than is known does no harm.
    """

    __slots__ = ("connection", "count", "number", "numbered", "session")

    def __init__(self) -> None:
        self.session = os.urandom(SESSION_BYTES)
        self.number = 0
        self.numbered: dict[str, Any] = {"session": self.session, "seq": 0}
        self.count = 1
        self.connection: Any = None


class Lanes:
    """The lanes of one kind, of one process."""

    def __init__(self) -> None:
        self._free: deque[Lane] = deque()
        #: Lets others have a lane, since its call was answered.
        self.give_back: Callable[[Lane], None] = self._free.append
        self._unfinished: deque[Lane] = deque()

    def take(self, count: int = 1) -> Lane:
        """Return a lane that nobody else has, the one used last or a new one, with the number of its next call."""
        free = self._free
        try:
            lane = free.pop()
        except IndexError:
            lane = Lane()
        lane.numbered["seq"] = lane.number = lane.number + 1
        lane.count = count
        return lane

    def leave(self, lane: Lane) -> None:
        """Keep ``lane`` aside, since the answer to its get may hold items that are leased to it."""
        self._unfinished.append(lane)

    def take_unfinished(self) -> Lane | None:
        """Return a lane whose last get is to be repeated; None if there is none."""
        try:
            return self._unfinished.popleft()
        except IndexError:
            return None

    @property
    def has_unfinished(self) -> bool:
        """Whether `take_unfinished` would find one."""
        return bool(self._unfinished)
