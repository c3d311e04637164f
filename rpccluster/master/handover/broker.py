"""Connections in transit between workers: who gives how many, who gets which, and the replies that follow.

Runs in the master. Keeps its own copy of each descriptor until the adopter has said `Adopted`; so a connection
outlives any worker that has not begun with it. An heir, in an upgrade, takes whatever it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Adopted, Closed, DonorGone, Give, Message, Refused, Release, Released, Reply
from rpccluster.ipc.packets import Passing, close_all, seen
from rpccluster.log import logger
from rpccluster.master.children.child import WorkerHandle, WorkerState
from rpccluster.master.handover.transit import Ended, Figures, Grants, Transit, ended_with
from rpccluster.master.loop import Loop

__all__ = ["Broker"]

WINDOW = 64  # connections in transit at once: descriptors in flight count per user, unix(7)
WINDOW_BYTES = 16_777_216  # and of what travels with them; one more is granted while less than this is under way
GRANT_BYTES = 4_194_304  # of that for one donor
PATIENCE_SECONDS = 1.0  # for an adopter to say so; then what it has not read is taken back
SILENT_SECONDS = 1.0  # a worker that shows no life for longer is not asked to adopt
SHUN_SECONDS = 1.0  # nor one, for so long, that refused or from which something was taken back
UNEVEN = 0.1  # of the mean: more than this between fullest and emptiest is worth moving connections


class Speaker(Protocol):
    """What the broker needs of the roster."""

    workers: list[WorkerHandle]

    def say(self, worker: WorkerHandle, message: Message, descriptors: Sequence[int] = ()) -> None: ...


class Broker:
    """All connections in transit."""

    def __init__(self, loop: Loop, speaker: Speaker, first_serial: int = 1) -> None:
        """``first_serial`` is the first worker's of this master; lower ones are those of its predecessors."""
        self._loop = loop
        self._speaker = speaker
        self._transits: dict[int, Transit] = {}
        self._owners: dict[int, WorkerHandle] = {}  # of connections that have moved at least once
        self._awaited: dict[int, list[list[int]]] = {}  # by cid: the calls that ran elsewhere when its owner got it
        self._grants = Grants()
        self._shunned: dict[WorkerHandle, float] = {}  # until when they are not asked to adopt
        self._ended = Ended(first_serial)
        self.is_uneven = False
        self._heir: Channel | None = None
        self._heir_rests_until = 0.0  # it has refused a connection
        self.figures = Figures()

    @property
    def in_transit(self) -> int:
        """Connections that are in no worker."""
        return len(self._transits)

    @property
    def is_moving(self) -> bool:
        """Whether connections are on their way, or may be without having been seen."""
        return bool(self._transits) or self._grants.are_open

    # -- what workers say on their connection channels

    def hear(self, worker: WorkerHandle, passing: Passing, descriptors: list[int], now: float) -> None:
        """Take one message of ``worker``; its descriptors are the broker's from now on."""
        message = seen(passing)
        if isinstance(message, Give):
            self._take(passing, descriptors, now)
        elif isinstance(message, Adopted):
            self._note_adopted(worker, message.cid, now)
        elif isinstance(message, Refused):
            self._note_refused(worker, message.cid, now)
        elif isinstance(message, Reply):
            self._route(passing, descriptors)
        elif isinstance(message, Closed):
            self._disown(message.cid)
        elif isinstance(message, Released):
            self._grants.note_released(worker, message.number, now)

    def _take(self, passing: Passing, descriptors: list[int], now: float, giver: Channel | None = None) -> None:
        give = seen(passing)
        assert isinstance(give, Give)
        self._disown(give.cid)
        if not descriptors and giver is not None:
            logger.warning("A connection is left to the old master: no descriptor left")
            self._send(giver, Refused(give.cid))
            return
        if not descriptors:  # this process had no room for it, and nobody else is to have it
            logger.error("A connection was lost on its way: no descriptor left")
            return
        transit = self._transits[give.cid] = Transit(passing, descriptors, now, giver)
        if giver is None:  # else the old master tells, behind its replies
            transit.lost |= self._ended.before(give)

    def _note_adopted(self, worker: WorkerHandle | None, cid: int, now: float) -> None:
        transit = self._transits.pop(cid, None)
        if transit is None:
            return
        close_all(transit.descriptors)
        self.figures.handed_over += 1
        self.figures.longest_seconds = max(self.figures.longest_seconds, now - transit.began_at)
        if transit.giver is not None:
            self._send(transit.giver, Adopted(cid))
        if worker is not None:  # else the heir has it, and was told already
            self._owners[cid] = worker
            if transit.give.awaited:
                self._awaited[cid] = transit.give.awaited
            self._send_followers(worker.connections, transit)

    def _disown(self, cid: int) -> None:
        self._owners.pop(cid, None)
        self._awaited.pop(cid, None)

    def _note_refused(self, worker: WorkerHandle, cid: int, now: float) -> None:
        logger.warning("Worker (pid: %d) has refused a connection: it ends, or has no descriptor left", worker.pid)
        self._shunned[worker] = now + SHUN_SECONDS
        transit = self._transits.get(cid)
        if transit is not None and transit.adopter is worker:
            transit.unplace()

    def _route(self, passing: Passing, descriptors: list[int]) -> None:
        """A reply goes to whoever owns the connection now; if nobody does, it has ended."""
        reply = seen(passing)
        assert isinstance(reply, Reply)
        transit = self._transits.get(reply.cid)
        owner = self._owners.get(reply.cid)
        if transit is not None and not transit.is_with_heir:
            transit.replies.append((passing, descriptors))
        elif owner is not None:
            self._hand_on(owner.connections, passing, descriptors)
        elif self._heir is not None:
            self._hand_on(self._heir, passing, descriptors)
        else:
            close_all(descriptors)
            self.figures.dropped_replies += 1

    # -- workers that have ended

    def note_gone(self, worker: WorkerHandle) -> None:
        """``worker`` has ended, and all that it said has been heard. What it left unread goes to others."""
        self._grants.forget(worker)
        self._shunned.pop(worker, None)
        for cid in [cid for cid, owner in self._owners.items() if owner is worker]:
            self._disown(cid)
        for transit in self._transits.values():
            if transit.adopter is worker:  # it never said that it had it: it has done nothing with it
                transit.unplace()
        for passing, descriptors in _unread(worker):
            if isinstance(seen(passing), Reply):  # for a connection that it gave on just before
                self._route(passing, descriptors)
            else:
                close_all(descriptors)
        self.spread_loss(DonorGone(worker.serial, False))

    def spread_loss(self, gone: DonorGone) -> None:
        """Let every owner answer the calls that died with a worker: for each connection, behind its last reply.

        What is in transit learns it when it has come to its owner: the master may still hold replies to it.
        """
        self._ended.note(gone)
        for cid in [gone.cid] if gone.cid else [*self._awaited]:
            if any(ended_with(call[0], gone) for call in self._awaited.get(cid, ())):
                self._send(self._owners[cid].connections, gone._replace(cid=cid))
        for transit in self._transits.values():
            if gone.cid in (0, transit.give.cid):
                transit.note_loss(gone)
        if self._heir is not None:
            self._send(self._heir, gone)

    def _send_followers(self, channel: Channel, transit: Transit) -> None:
        """To a new owner: the replies that came meanwhile, and who has ended of those whose replies it awaits."""
        replies, transit.replies = transit.replies, []
        for reply, descriptors in replies:
            self._hand_on(channel, reply, descriptors)
        living = {worker.serial for worker in self._speaker.workers}
        lost = transit.lost | self._ended.own(transit.give, living)
        for serial in sorted(lost):
            self._send(channel, DonorGone(serial, False, transit.give.cid))

    # -- placing

    def turn(self, now: float, *, may_move: bool) -> None:
        """Called every turn of the master's loop: place, take back, and, if ``may_move``, ask for more."""
        for transit in list(self._transits.values()):
            adopter = transit.adopter
            if transit.is_unplaced:
                self._place(transit, now)
            elif adopter is not None and not transit.is_read and now - transit.sent_at > PATIENCE_SECONDS:
                if self._take_back(adopter):
                    logger.warning("Took connections back from worker (pid: %d), which does not answer", adopter.pid)
                    self._shunned[adopter] = now + SHUN_SECONDS
                transit.is_read = transit.adopter is not None
        if may_move:
            self._empty_the_retiring(now)
            if self.is_uneven:
                self._even_out(now)

    def _place(self, transit: Transit, now: float) -> None:
        if self._heir is not None and now >= self._heir_rests_until:
            if self._show(self._heir, transit):
                transit.is_with_heir = True
                self._send_followers(self._heir, transit)
            return
        candidates = self._with_room(self._adopters(now))
        if not candidates:  # somebody else was faster, or all stops: to one that retires, and answers what it has
            candidates = self._with_room(self._alive(now, WorkerState.RETIRING))
        if candidates:
            adopter = min(candidates, key=lambda worker: worker.load)
            if self._show(adopter.connections, transit):
                adopter.given += 1
                transit.adopter, transit.sent_at, transit.is_read = adopter, now, False

    def _show(self, channel: Channel, transit: Transit) -> bool:
        """Send a connection, and keep it. False if a copy of a descriptor is needed and cannot be had: later, then."""
        try:
            self._send(channel, transit.message, transit.descriptors)
        except OSError as error:
            logger.error("Cannot pass a connection on for now: %s", error)
            return False
        return True

    def _take_back(self, worker: WorkerHandle) -> int:
        """Read what a worker has left unread, which nobody can adopt then; returns how many connections that were."""
        replies, taken = [], 0
        for passing, descriptors in _unread(worker):
            message = seen(passing)
            if not isinstance(message, Give):
                replies.append((passing, descriptors))
            else:
                close_all(descriptors)
                taken += 1
                transit = self._transits.get(message.cid)
                if transit is not None:
                    transit.unplace()
        for passing, descriptors in replies:
            self._hand_on(worker.connections, passing, descriptors)
        return taken

    def _adopters(self, now: float) -> list[WorkerHandle]:
        ready = self._alive(now, WorkerState.READY)
        return [worker for worker in ready if worker.is_holding and not worker.is_full(now)]

    def _alive(self, now: float, state: WorkerState) -> list[WorkerHandle]:
        return [
            worker
            for worker in self._speaker.workers
            if worker.state is state
            and not worker.is_killed
            and _shows_life(worker)
            and now >= self._shunned.get(worker, 0.0)
        ]

    def _with_room(self, workers: list[WorkerHandle]) -> list[WorkerHandle]:
        return [worker for worker in workers if worker.room]

    # -- asking

    def _empty_the_retiring(self, now: float) -> None:
        """Grant the retiring as many as somebody can take; what nobody can stays with them."""
        for worker in self._speaker.workers:
            if worker.state is WorkerState.RETIRING and worker.connection_count and not worker.is_killed:
                self._ask(worker, worker.connection_count, now)

    def _ask(self, worker: WorkerHandle, wanted: int, now: float) -> None:
        if not self._grants.is_free(worker, now):
            return
        granted = self._grants.total(_shows_life)
        unplaced = sum(transit.is_unplaced for transit in self._transits.values())
        room = sum(each.room for each in self._adopters(now)) if self._heir is None else WINDOW
        if now < self._heir_rests_until:
            room = 0
        number = min(wanted, room - unplaced - granted.number, WINDOW - len(self._transits) - granted.number)
        under_way = sum(transit.size for transit in self._transits.values()) + granted.number_bytes
        number_bytes = min(GRANT_BYTES, WINDOW_BYTES - under_way)
        if number > 0 and number_bytes > 0:
            release = Release(number, number_bytes)
            self._grants.grant(worker, release)
            self._speaker.say(worker, release)

    def even_out(self) -> None:
        """Look whether the workers' connections are uneven, until they are not."""
        self.is_uneven = True

    def _even_out(self, now: float) -> None:
        adopters = self._adopters(now)
        counts = [worker.load for worker in adopters]
        is_booting = any(each.state is WorkerState.BOOTING for each in self._speaker.workers)
        if self._transits or self._grants.total(_shows_life).number or is_booting:
            return
        if len(counts) < 2 or max(counts) - min(counts) <= max(1, UNEVEN * sum(counts) / len(counts)):
            self.is_uneven = False
            return
        fullest = max(adopters, key=lambda worker: worker.load)
        target = -(-sum(counts) // len(counts))
        self._ask(fullest, max(1, fullest.load - target), now)

    # -- the heir of an upgrade

    def give_all_to(self, heir: Channel, now: float) -> None:
        """From now on everything goes to the new master."""
        self._heir = heir
        for worker in self._speaker.workers:
            self._take_back(worker)

    def lose_heir(self) -> None:
        """The new master has ended: what it was given ends with it."""
        self._heir = None

    def hear_heir(self, message: Message, now: float) -> None:
        """What the new master says of what it was given."""
        if isinstance(message, Adopted):
            self._note_adopted(None, message.cid, now)
        elif isinstance(message, Refused) and message.cid in self._transits:
            logger.warning("The new master has refused a connection: it is served here a little longer")
            self._transits[message.cid].is_with_heir = False
            self._heir_rests_until = now + SHUN_SECONDS

    def hear_old_master(self, channel: Channel, passing: Passing, descriptors: list[int], now: float) -> None:
        """The other side of that: what the old master gives."""
        message = seen(passing)
        if isinstance(message, Give):
            self._take(passing, descriptors, now, channel)
        elif isinstance(message, Reply):
            self._route(passing, descriptors)
        elif isinstance(message, DonorGone):
            self.spread_loss(message)

    def _send(self, channel: Channel, message: Passing, descriptors: Sequence[int] = ()) -> None:
        if not channel.is_closed:
            channel.send(message, descriptors)
            self._loop.mind_writing(channel)

    def _hand_on(self, channel: Channel, message: Passing, descriptors: list[int]) -> None:
        """Likewise, and the descriptors go, too: that needs no copies."""
        if channel.is_closed:
            close_all(descriptors)
        else:
            channel.post(channel.pack(message, descriptors))
            self._loop.mind_writing(channel)

    def close(self) -> None:
        """Close this process's copies: no client's connection may stay in a forked child, or after the end."""
        while self._transits:
            self._transits.popitem()[1].close()


def _shows_life(worker: WorkerHandle) -> bool:
    return worker.silent_seconds < SILENT_SECONDS


def _unread(worker: WorkerHandle) -> list[tuple[Passing, list[int]]]:
    """Read back what was sent to ``worker`` on its connection channel and not read, in its order."""
    return [*worker.far_end.receive_unopened(), *worker.connections.unsend()]
