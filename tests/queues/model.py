"""A queue in a list: what every engine has to answer, said as simply as can be, for random verbs to be held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rpccluster.errors import LeaseLost, QueueFull, StaleToken
from rpccluster.queues.engine import Ack, Dead, DeadItem, EndSession, Get, Item, Nack, Peek, Purge, Put, Retry, Rules

__all__ = ["Model"]

_ALIVE = ("ready", "delayed", "leased")


@dataclass
class Kept:
    """An item; ``at`` sorts those that are ready."""

    id: int
    value: bytes
    priority: int
    place: float
    state: str
    until: float = 0.0
    expires: float = float("inf")
    group: str | None = None
    attempt: int = 0
    forgiven: int = 0
    session: bytes = b""
    seq: int | None = None
    error: str = ""

    @property
    def at(self) -> tuple[int, float]:
        """Where it stands among those that are ready."""
        return -self.priority, self.place


@dataclass
class Model:
    """One queue. ``now`` is the time, which only the test moves."""

    name: str
    rules: Rules
    now: float = 0.0
    items: dict[int, Kept] = field(default_factory=dict)
    puts: dict[bytes, tuple[int, list[int]]] = field(default_factory=dict)
    dedup: dict[str, tuple[float, list[int]]] = field(default_factory=dict)
    acked: set[tuple[int, int]] = field(default_factory=set)
    token: int = 0
    is_paused: bool = False
    places: float = 0.0

    # -- what time brings

    def tick(self) -> None:
        """End leases, begin delayed items, drop expired ones, as far as their time has come."""
        for item in self._in("leased"):
            if item.until <= self.now:
                self._give_back(item, "its lease was over")
        for item in sorted(self._in("delayed"), key=lambda item: (item.until, item.id)):
            if item.until <= self.now:
                item.state, item.place = "ready", self._place()
        for item in self._in("ready", "delayed"):
            if item.expires <= self.now:
                del self.items[item.id]

    # -- verbs

    def put(self, verb: Put, answer: Any) -> None:
        """Hold an engine's answer to a put against what is right, and take over the ids of new items."""
        if verb.session in self.puts:
            seq, ids = self.puts[verb.session]
            if verb.seq <= seq:
                assert answer == ids if verb.seq == seq else isinstance(answer, ValueError)
                return
        if verb.token is not None and verb.token < self.token:
            assert isinstance(answer, StaleToken)
            return
        self.token = max(self.token, verb.token or 0)
        until, ids = self.dedup.get(verb.dedup_id or "", (-1.0, []))
        if verb.dedup_id is None or until <= self.now:
            if self.rules.max_size is not None and len(self._in(*_ALIVE)) + len(verb.values) > self.rules.max_size:
                assert isinstance(answer, QueueFull), answer
                return
            ids = self._add(verb, answer)
        assert answer == ids
        if verb.session is not None:
            self.puts[verb.session] = verb.seq, ids

    def _add(self, verb: Put, ids: list[int]) -> list[int]:
        assert len(ids) == len(verb.values)
        for id, value in zip(ids, verb.values):
            assert id not in self.items and id > max(self.items, default=0)
            state = "delayed" if verb.delay else "ready"
            expires = float("inf") if verb.expires is None else self.now + verb.expires
            at = self.now + verb.delay
            self.items[id] = Kept(id, value, verb.priority, self._place(), state, at, expires, verb.group)
        if verb.dedup_id is not None:
            self.dedup[verb.dedup_id] = self.now + self.rules.dedup_window, ids
        return ids

    def get(self, verb: Get) -> Any:
        """Return what a get is answered with."""
        lost = self._ack(verb.ack)
        if lost:
            return lost
        again = [
            i for i in self._in("leased") if i.session == verb.session and verb.seq is not None and i.seq == verb.seq
        ]
        if not again and not self.is_paused:
            for _ in range(verb.n):
                first = min(self._free(), key=lambda item: item.at, default=None)
                if first is None:
                    break
                first.state, first.session, first.seq = "leased", verb.session, verb.seq
                first.until = self.now + self.rules.lease
                first.attempt += 1
                again.append(first)
        return [Item(item.id, item.attempt, item.value) for item in again]

    def ack(self, verb: Ack) -> Any:
        """Return what an ack is answered with."""
        if verb.token is not None and verb.token < self.token:
            return StaleToken()
        self.token = max(self.token, verb.token or 0)
        return self._ack(verb.pairs) or True

    def nack(self, verb: Nack) -> Any:
        """Return what a nack is answered with."""
        item = self._held(verb.id, verb.attempt)
        if item is None:
            return LeaseLost()
        self._give_back(item, verb.error, verb.delay, is_dead=verb.dead)
        return True

    def touch(self, verb: Any) -> Any:
        """Return what a touch is answered with."""
        item = self._held(verb.id, verb.attempt)
        if item is None:
            return LeaseLost()
        item.until = self.now + self.rules.lease
        return True

    def end_session(self, verb: EndSession) -> int:
        """Return what the end of a session is answered with."""
        held = [item for item in self._in("leased") if item.session == verb.session]
        for item in held:
            item.forgiven += not verb.counts
            self._give_back(item, "its consumer has gone")
        return len(held)

    def peek(self, verb: Peek) -> list[Item]:
        """Return what a peek is answered with."""
        ready = sorted(self._in("ready"), key=lambda item: item.at)
        return [Item(item.id, item.attempt, item.value) for item in ready[: verb.n]]

    def dead(self, verb: Dead) -> list[DeadItem]:
        """Return what `Dead` is answered with."""
        dead = sorted(self._in("dead"), key=lambda item: item.id)
        return [DeadItem(i.id, i.attempt - i.forgiven, i.value, i.error) for i in dead[: verb.n]]

    def retry(self, verb: Retry) -> int:
        """Return what a retry is answered with."""
        dead = sorted((item for item in self._in("dead") if verb.id in (None, item.id)), key=lambda item: item.id)
        for item in dead:
            item.state, item.place, item.forgiven, item.error = "ready", self._place(), item.attempt, ""
        return len(dead)

    def purge(self, verb: Purge) -> int:
        """Return what a purge is answered with."""
        gone = self._in("ready", "delayed", "dead")
        for item in gone:
            del self.items[item.id]
        return len(gone)

    def stats(self, verb: object) -> dict[str, object]:
        """Return what `Stats` is answered with."""
        counts = {state: len(self._in(state)) for state in ("ready", "delayed", "leased", "dead")}
        size = sum(len(item.value) for item in self._in(*_ALIVE))
        return {**counts, "bytes": size, "paused": self.is_paused}

    # -- inside

    def _in(self, *states: str) -> list[Kept]:
        return [item for item in self.items.values() if item.state in states]

    def _free(self) -> list[Kept]:
        """Return the ready items that no leased one of their group holds up."""
        busy = {item.group for item in self._in("leased")} - {None}
        return [item for item in self._in("ready") if item.group not in busy]

    def _place(self) -> float:
        self.places += 1
        return self.places

    def _held(self, id: int, attempt: int) -> Kept | None:
        item = self.items.get(id)
        return item if item is not None and item.state == "leased" and item.attempt == attempt else None

    def _ack(self, pairs: Any) -> LeaseLost | None:
        lost = []
        for id, attempt in pairs:
            if self._held(id, attempt) is not None:
                del self.items[id]
                self.acked.add((id, attempt))
            elif (id, attempt) not in self.acked:
                lost.append(id)
        return LeaseLost(str(lost)) if lost else None

    def _give_back(self, item: Kept, error: str, delay: float = 0.0, is_dead: bool = False) -> None:
        item.error = error or item.error
        if item.expires <= self.now:
            del self.items[item.id]
        elif is_dead or item.attempt - item.forgiven >= self.rules.max_attempts:
            item.state = "dead"
        elif delay:
            item.state, item.until = "delayed", self.now + delay
        else:
            item.state = "ready"
