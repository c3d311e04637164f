"""Connections in transit between workers: who gives how many, who gets which, and the replies that follow.

Runs in the master. Keeps its own copy of each descriptor until the adopter has said `Adopted`; so a connection
outlives any worker that has not begun with it. An heir, in an upgrade, takes whatever it is given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import (
    Adopted,
    Closed,
    DonorGone,
    Give,
    Message,
    Refused,
    Release,
    Released,
    Reply,
)
from rpccluster.log import logger
from rpccluster.master.loop import Loop
from rpccluster.master.worker_handle import WorkerHandle, WorkerState

__all__ = ["Broker", "Figures"]

WINDOW = 64  # connections in transit at once: descriptors in flight count per user, unix(7)
PATIENCE_SECONDS = 1.0  # for an adopter to say so; then what it has not read is taken back
SILENT_SECONDS = 1.0  # a worker that shows no life for longer is not asked to adopt
UNEVEN = 0.1  # of the mean: more than this between fullest and emptiest is worth moving connections


class Speaker(Protocol):
    """What the broker needs of the roster."""

    workers: list[WorkerHandle]

    def say(self, worker: WorkerHandle, message: Message, descriptors: Sequence[int] = ()) -> None: ...


@dataclass(eq=False)
class _Transit:
    """A connection that is nobody's but the master's, or whose adopter has not spoken yet."""

    give: Give
    descriptor: int
    began_at: float
    adopter: WorkerHandle | None = None
    sent_at: float = 0.0
    is_with_heir: bool = False
    is_read: bool = False  # by the adopter: it cannot be taken back any more
    replies: list[Reply] = field(default_factory=list)


@dataclass
class Figures:
    """What ``status`` tells of handovers; seconds are from giving to adopting."""

    handed_over: int = 0
    longest_seconds: float = 0.0
    dropped_replies: int = 0


class Broker:
    """All connections in transit."""

    def __init__(self, loop: Loop, speaker: Speaker) -> None:
        self._loop = loop
        self._speaker = speaker
        self._transits: dict[int, _Transit] = {}
        self._owners: dict[int, WorkerHandle] = {}  # of connections that have moved at least once
        self._asked: set[WorkerHandle] = set()  # told to release, and not done with it
        self._declined: dict[WorkerHandle, float] = {}  # when they had no descriptor left
        self._gone: list[DonorGone] = []  # said while something was in transit, for its next owner
        self.is_uneven = False
        self._heir: Channel | None = None
        self.figures = Figures()

    @property
    def in_transit(self) -> int:
        """Connections that are in no worker."""
        return len(self._transits)

    # -- what workers say on their connection channels

    def hear(self, worker: WorkerHandle, message: Message, descriptors: list[int], now: float) -> None:
        """Take one message of ``worker``; its descriptors are the broker's from now on."""
        if isinstance(message, Give):
            self._take(message, descriptors, now)
        elif isinstance(message, Adopted):
            self._note_adopted(worker, message.cid, now)
        elif isinstance(message, Refused):
            self._declined[worker] = now
            self._place_anew(self._transits.get(message.cid))
        elif isinstance(message, Reply):
            self._route(message)
        elif isinstance(message, Closed):
            self._owners.pop(message.cid, None)
        elif isinstance(message, Released):
            self._asked.discard(worker)

    def _take(self, give: Give, descriptors: list[int], now: float) -> None:
        if not descriptors:  # this process had no room for it, and nobody else has it
            logger.error("A connection was lost on its way: no descriptor left")
            return
        self._owners.pop(give.cid, None)
        self._transits[give.cid] = _Transit(give, descriptors[0], now)

    def _note_adopted(self, worker: WorkerHandle | None, cid: int, now: float) -> None:
        transit = self._transits.pop(cid, None)
        if transit is None:
            return
        os.close(transit.descriptor)
        self.figures.handed_over += 1
        self.figures.longest_seconds = max(self.figures.longest_seconds, now - transit.began_at)
        if worker is None:  # the heir has it, and follows it up
            return
        self._owners[cid] = worker
        for reply in transit.replies:
            self._speaker.say(worker, reply)
        for gone in self._gone if transit.give.awaited else ():
            self._speaker.say(worker, gone)

    def _route(self, reply: Reply) -> None:
        """To whoever owns the connection now; if nobody does, it has ended."""
        transit = self._transits.get(reply.cid)
        owner = self._owners.get(reply.cid)
        if transit is not None and not transit.is_with_heir:
            transit.replies.append(reply)
        elif owner is not None:
            self._speaker.say(owner, reply)
        elif self._heir is not None:
            self._tell_heir(reply)
        else:
            self.figures.dropped_replies += 1

    def note_gone(self, worker: WorkerHandle) -> None:
        """``worker`` has ended, and all that it said has been heard."""
        self._asked.discard(worker)
        self._declined.pop(worker, None)
        self._owners = {cid: owner for cid, owner in self._owners.items() if owner is not worker}
        for transit in self._transits.values():
            if transit.adopter is worker:  # it never said that it had it: it has done nothing with it
                self._place_anew(transit)
        self.spread_loss(DonorGone(worker.serial, False))

    def spread_loss(self, gone: DonorGone) -> None:
        """Let every owner answer the calls that died with a worker."""
        if self._transits:
            self._gone.append(gone)
        for worker in self._speaker.workers:
            if worker.state is not WorkerState.BOOTING:
                self._speaker.say(worker, gone)
        if self._heir is not None:
            self._tell_heir(gone)

    # -- placing

    def turn(self, now: float, *, may_move: bool) -> None:
        """Called every turn of the master's loop: place, take back, and, if ``may_move``, ask for more."""
        self._declined = {worker: at for worker, at in self._declined.items() if now - at < PATIENCE_SECONDS}
        if self._heir is not None and self._heir.is_closed:  # it has died, and what it was given with it
            self.close()
            return
        for transit in list(self._transits.values()):
            if transit.adopter is None and not transit.is_with_heir:
                self._place(transit, now)
            elif transit.adopter is not None and not transit.is_read and now - transit.sent_at > PATIENCE_SECONDS:
                self._take_back(transit.adopter)
                transit.is_read = transit.adopter is not None
        if not self._transits:
            self._gone.clear()
        if may_move:
            self._empty_the_retiring()
            if self.is_uneven:
                self._even_out()

    def _place(self, transit: _Transit, now: float) -> None:
        if self._heir is not None:
            transit.is_with_heir = True
            self._tell_heir(transit.give, [transit.descriptor])
            for reply in transit.replies:
                self._tell_heir(reply)
            return
        candidates = [worker for worker in self._adopters() if self._room(worker) > 0]
        if candidates:
            adopter = min(candidates, key=lambda worker: worker.connection_count + self._coming(worker))
            transit.adopter, transit.sent_at, transit.is_read = adopter, now, False
            adopter.connections.send(transit.give, [transit.descriptor])
            self._loop.mind_writing(adopter.connections)

    def _place_anew(self, transit: _Transit | None) -> None:
        if transit is not None:
            transit.adopter = None

    def _take_back(self, worker: WorkerHandle) -> None:
        """Read what a worker that does not answer has left unread: no one can adopt what another process read."""
        unread = worker.far_end.receive()
        for _, descriptors in unread:
            for descriptor in descriptors:
                os.close(descriptor)
        for message in [*(message for message, _ in unread), *worker.connections.unsend()]:
            if isinstance(message, Give):
                logger.warning("Taking a connection back from worker (pid: %d), which does not answer", worker.pid)
                self._place_anew(self._transits.get(message.cid))

    def _adopters(self) -> list[WorkerHandle]:
        return [
            worker
            for worker in self._speaker.workers
            if worker.is_ready
            and worker.is_holding
            and worker.silent_seconds < SILENT_SECONDS
            and worker not in self._declined
        ]

    def _coming(self, worker: WorkerHandle) -> int:
        return sum(transit.adopter is worker for transit in self._transits.values())

    def _room(self, worker: WorkerHandle) -> int:
        return worker.room - self._coming(worker)

    # -- asking

    def _empty_the_retiring(self) -> None:
        """Grant the retiring as many as somebody can take; what nobody can stays with them."""
        for worker in self._speaker.workers:
            if worker.state is WorkerState.RETIRING and worker.connection_count and not worker.is_killed:
                self._ask(worker, worker.connection_count)

    def _ask(self, worker: WorkerHandle, wanted: int) -> None:
        if worker in self._asked:
            return
        room = WINDOW if self._heir is not None else sum(max(0, self._room(each)) for each in self._adopters())
        number = min(wanted, room - self._unplaced(), WINDOW - len(self._transits))
        if number > 0:
            self._asked.add(worker)
            self._speaker.say(worker, Release(number))

    def _unplaced(self) -> int:
        return sum(transit.adopter is None and not transit.is_with_heir for transit in self._transits.values())

    def even_out(self) -> None:
        """Look whether the workers' connections are uneven, until they are not."""
        self.is_uneven = True

    def _even_out(self) -> None:
        adopters = self._adopters()
        counts = [worker.connection_count for worker in adopters]
        if self._transits or self._asked or any(each.state is WorkerState.BOOTING for each in self._speaker.workers):
            return
        if len(counts) < 2 or max(counts) - min(counts) <= max(1, UNEVEN * sum(counts) / len(counts)):
            self.is_uneven = False
            return
        fullest = max(adopters, key=lambda worker: worker.connection_count)
        target = -(-sum(counts) // len(counts))
        self._ask(fullest, fullest.connection_count - target)

    # -- the heir of an upgrade

    def give_all_to(self, heir: Channel) -> None:
        """From now on everything goes to the new master."""
        self._heir = heir
        for transit in self._transits.values():
            if transit.adopter is None:
                continue
            self._take_back(transit.adopter)

    def hear_heir(self, message: Message, now: float) -> None:
        """What the new master says of what it was given."""
        if isinstance(message, Adopted):
            self._note_adopted(None, message.cid, now)

    def hear_old_master(self, channel: Channel, message: Message, descriptors: list[int], now: float) -> None:
        """The other side of that: what the old master gives."""
        if isinstance(message, Give) and descriptors:
            self._take(message, descriptors, now)
            channel.send(Adopted(message.cid))
            self._loop.mind_writing(channel)
        elif isinstance(message, Reply):
            self._route(message)
        elif isinstance(message, DonorGone):
            self.spread_loss(message)

    def _tell_heir(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        assert self._heir is not None
        if not self._heir.is_closed:
            self._heir.send(message, descriptors)
            self._loop.mind_writing(self._heir)

    def close(self) -> None:
        """Close this process's copies: no client's connection may stay in a forked child, or after the end."""
        while self._transits:
            os.close(self._transits.popitem()[1].descriptor)
