"""What repeated calls are answered with: the last put of each session, and the acks of late. Runs in the keeper."""

from __future__ import annotations

from collections import OrderedDict

from rpccluster.queues.store import Answered, Store

__all__ = ["MOST_ACKED", "Repeats"]

MOST_ACKED = 100_000
_MOST_SESSIONS = 50_000  # in memory; the store has all


class Repeats:
    """The memory of what was done, part of which the store alone has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._puts: OrderedDict[bytes, Answered] = OrderedDict()
        self._acked: OrderedDict[tuple[int, int], None] = OrderedDict.fromkeys(store.acked())
        self._acked_now: list[tuple[int, int]] = []

    def put(self, session: bytes, seq: int) -> Answered | None:
        """Return how this put was answered; None if it is a new one. Raises ValueError for an older one."""
        found = self._puts.get(session)
        if found is None:
            found = self._store.answered(session)
        if found is None or seq > found.seq:
            return None
        if seq == found.seq:
            return found
        raise ValueError(f"found put {seq} of a session whose last one was {found.seq}, expected that or a later one")

    def note_put(self, session: bytes, answered: Answered, now: float) -> None:
        """Remember the last put of a session."""
        self._puts[session] = answered
        self._puts.move_to_end(session)
        if len(self._puts) > _MOST_SESSIONS:
            self._puts.popitem(last=False)
        self._store.save_answered(session, answered, now)

    def was_acked(self, id: int, attempt: int) -> bool:
        """Return whether this attempt has acked the item, of late."""
        return (id, attempt) in self._acked

    def note_acked(self, id: int, attempt: int) -> None:
        """Remember an ack."""
        self._acked[id, attempt] = None
        self._acked_now.append((id, attempt))
        if len(self._acked) > MOST_ACKED:
            self._acked.popitem(last=False)

    def save(self) -> None:
        """Have the store keep the acks of this batch."""
        if self._acked_now:
            self._store.save_acked(self._acked_now)
            self._acked_now = []
