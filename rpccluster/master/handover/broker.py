"""Moves connections between workers, and the replies that follow them. Runs in the master.

Performs the decisions of `rpccluster.master.handover.placement`, and takes the messages of workers and other masters
about connections. Owns the descriptors in transit: it keeps its copy of each until the adopter has sent `Adopted`, so a
connection outlives a worker that has not begun with it. In an upgrade the new master adopts all connections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import (
    Adopted,
    CancelCall,
    Closed,
    Collect,
    DonorGone,
    Drop,
    Give,
    Keep,
    Message,
    Noted,
    Refused,
    Released,
    Reply,
)
from rpccluster.ipc.packets import Passing, close_all, seen
from rpccluster.ledger.why import NEW
from rpccluster.log import logger
from rpccluster.master.handover import placement
from rpccluster.master.handover.copies import Copies, Copy, revive
from rpccluster.master.handover.crashes import Crash, Crashes
from rpccluster.master.handover.owners import Ended, Owners
from rpccluster.master.handover.placement import ALONE_SECONDS, LOOK_SECONDS, PATIENCE_SECONDS
from rpccluster.master.handover.returning import Returning
from rpccluster.master.handover.sending import Sender, read_back
from rpccluster.master.handover.transit import Figures, Grants, Transit
from rpccluster.master.handover.worker import Worker
from rpccluster.master.loop import Loop

__all__ = ["Broker"]


class Broker:
    """All connections in transit.

    ``wake_at`` is the time (monotonic seconds) at which `turn` must be called if nothing happens before; `math.inf` if
    only an event can change anything. Every message asks for a turn at once.
    """

    def __init__(
        self,
        loop: Loop,
        workers: Callable[[], Sequence[Worker]],
        first_serial: int = 1,
        pause_seconds: Callable[[], float] = float,
        *,
        holds: bool = False,
    ) -> None:
        """``workers`` returns the workers that serve; ``first_serial`` is that of this master's first worker.

        ``pause_seconds`` returns for how long a connection is not read at whose calls three workers have crashed. With
        ``holds``, connections may wait here for a worker that starts when another has ended.
        """
        self._holds = holds
        self._guard = loop.guard
        self._sender = Sender(loop)
        self._workers = workers
        self._transits: dict[int, Transit] = {}  # by cid
        self._owners = Owners()
        self._copies = Copies()
        self._crashes = Crashes()
        self._pause_seconds = pause_seconds
        self._returning = Returning()
        self._grants = Grants()
        self._left_alone: dict[Worker, float] = {}  # until when they get no connection
        self._ended = Ended(first_serial)
        self._old_master: Channel | None = None  # whose workers still run calls of connections that have come
        self._new_master: Channel | None = None
        self._new_master_at = 0.0  # it gets no connection until then, since it has refused one
        self.is_uneven = False
        self.has_revived = False  # connections of dead workers, since the last turn
        self.wake_at = math.inf
        self.figures = Figures()

    @property
    def in_transit(self) -> int:
        """Number of connections that no worker serves."""
        return len(self._transits)

    @property
    def is_moving(self) -> bool:
        """Whether connections are in transit, or a donor may have sent some."""
        return bool(self._transits) or self._grants.are_open

    @property
    def callers_wait(self) -> bool:
        """Whether connections have come that nobody has been sent yet, or those of dead workers go on."""
        return self.has_revived or any(transit.is_unplaced for transit in self._transits.values())

    # -- performing what is decided

    def turn(self, now: float, *, may_move: bool) -> None:
        """Place connections in transit, take some back and, if ``may_move``, ask for more. Sets ``wake_at``.

        Call it after every event, also after a worker's state has changed, and at ``wake_at``.
        """
        self.has_revived = False
        workers = self._workers()
        if not (self._transits or self.is_uneven or placement.any_leaves(workers)):
            self.wake_at = math.inf
            return
        situation = placement.Situation(
            workers=workers,
            transits=[*self._transits.values()],
            grants=self._grants,
            left_alone=self._left_alone,
            new_master_at=self._new_master_at if self._new_master is not None else None,
            may_move=may_move,
            is_uneven=self.is_uneven,
            holds=self._holds,
        )
        actions, self.wake_at = placement.decide(situation, now)
        for action in actions:
            if not self._guard.attempt("move a connection", self._PERFORM[type(action)], self, action, now):
                self.wake_at = min(self.wake_at, now + LOOK_SECONDS)  # it lacked a descriptor: try again later

    def _place(self, action: placement.Place, now: float) -> None:
        transit, adopter = action
        self._sender.send(adopter.connections, transit.message, transit.descriptors)
        transit.place(adopter, now)

    def _pass_on(self, action: placement.PassOn, now: float) -> None:
        assert self._new_master is not None
        transit = action.transit
        self._sender.send(self._new_master, transit.message, transit.descriptors)
        transit.is_with_new_master = True
        self._send_followers(self._new_master, transit)

    def _take_back_late(self, action: placement.TakeBack, now: float) -> None:
        adopter = action.adopter
        taken = self._take_back(adopter)
        if taken:
            told = "Took back from worker (pid: %d, slot: %d) %d connections that it had not read for %g seconds"
            logger.warning(told, adopter.pid, adopter.slot, taken, PATIENCE_SECONDS)
            self._left_alone[adopter] = now + ALONE_SECONDS
        for transit in self._transits.values():
            if transit.adopter is adopter:
                transit.is_read = True

    def _take_back(self, worker: Worker) -> int:
        """Take back the connections that ``worker`` has not read. Returns their number."""
        taken = self._sender.take_back(worker)
        for give in taken:
            transit = self._transits.get(give.cid)
            if transit is not None:
                transit.unplace()
        return len(taken)

    def _ask(self, action: placement.Ask, now: float) -> None:
        self._sender.send(action.donor.channel, action.release)
        self._grants.grant(action.donor, action.release)  # not before it is sent: it would be waited for

    def _note_even(self, action: placement.Even, now: float) -> None:
        self.is_uneven = False

    _PERFORM: ClassVar[dict[type, Callable[[Broker, Any, float], None]]] = {
        placement.Place: _place,
        placement.PassOn: _pass_on,
        placement.TakeBack: _take_back_late,
        placement.Ask: _ask,
        placement.Even: _note_even,
    }

    def even_out(self) -> None:
        """Move connections until the workers have about as many each."""
        self.is_uneven = True
        self._want_turn()

    def _want_turn(self) -> None:
        self.wake_at = 0.0

    def uncovered(self, worker: Worker) -> dict[str, int]:
        """Return why connections of ``worker`` would end with it, and how many, as far as it has asked to be heard."""
        left = max(0, worker.connection_count - self._copies.count(worker))
        if worker.why_uncovered:
            return {worker.why_uncovered: left} if left else {}
        found = {}
        for why, count in [*self._copies.reasons(worker).items(), (NEW, left)]:
            if min(count, left):
                found[why] = min(count, left)
                left -= found[why]
        return found

    # -- what workers say on their connection channels

    def hear(self, worker: Worker, passing: Passing, descriptors: list[int], now: float) -> None:
        """Take one message of ``worker``, and own its descriptors from now on."""
        message = seen(passing)
        if not isinstance(message, Collect):
            self._want_turn()
        if isinstance(message, Give):
            self._collect(worker)  # its copy may be there yet
            self._copies.drop(worker, message.cid)
            if not message.peer:  # each owner of a Unix socket counts its stream from 0
                self._crashes.forget_message(message.cid)
            self._returning.note_given(worker, message)
            self._take(passing, descriptors, now)
        elif isinstance(message, Adopted):
            self._note_adopted_by(worker, message.cid, now)
        elif isinstance(message, Refused):
            self._note_refused(worker, message.cid, now)
        elif isinstance(message, Reply):
            self._route(passing, descriptors, worker)
            self._returning.note_returned(worker, message)
            self._tell_of_held()
        elif isinstance(message, Collect):
            self._collect(worker)
        elif isinstance(message, Noted):
            self._copies.note_noted(worker, message.cid, message.why)
        elif isinstance(message, Closed):
            self._copies.drop(worker, message.cid)
            self._owners.forget(message.cid)
            self._returning.forget(message.cid)
        elif isinstance(message, CancelCall):
            self._pass_to_its_worker(message)
        elif isinstance(message, Released):
            self._grants.note_released(worker, message.number, now)

    def _take(self, passing: Passing, descriptors: list[int], now: float, old_master: Channel | None = None) -> None:
        give = seen(passing)
        assert isinstance(give, Give)
        self._owners.forget(give.cid)
        if not descriptors and old_master is not None:
            logger.warning("Cannot take a connection from the old master, which serves it on: no descriptor is free")
            self._sender.send(old_master, Refused(give.cid))
            return
        if not descriptors:  # the donor has closed its own
            logger.error("Lost a connection (cid: %d) that moved: no descriptor is free", give.cid)
            return
        transit = self._transits[give.cid] = Transit(passing, descriptors, now, old_master)
        if old_master is None:  # otherwise the old master tells, behind its replies
            transit.lost |= self._ended.before(give)

    def _collect(self, worker: Worker) -> None:
        """Read the channel of copies of ``worker``."""
        for message, descriptors in worker.copies.receive() if worker.copies is not None else ():
            if isinstance(message, Keep):
                self._keep(worker, message, descriptors)
            elif isinstance(message, Noted):
                self._copies.note_noted(worker, message.cid, message.why)
            elif isinstance(message, Drop):
                self._copies.drop_all(worker, message.cids)

    def _keep(self, worker: Worker, keep: Keep, descriptors: list[int]) -> None:
        """Keep copies of the sockets of ``worker``; without their descriptors there are none."""
        if len(descriptors) != len(keep.connections):
            close_all(descriptors)
            return
        told = zip(keep.connections, descriptors)
        copies = {number: Copy(peer, identity, [each]) for (number, peer, identity), each in told}
        if len(copies) == len(descriptors):
            self._copies.keep_all(worker, copies)
        else:  # a number came twice
            close_all(descriptors)

    def _note_adopted_by(self, worker: Worker, cid: int, now: float) -> None:
        transit = self._transits.get(cid)
        if transit is not None and worker.ledger is not None and not transit.give.is_entering:
            give, descriptors = transit.give, transit.descriptors
            self._copies.keep(worker, cid, Copy(give.peer, give.identity, descriptors, transit.message))
            transit.descriptors = []
        transit = self._note_adopted(cid, now)
        if transit is not None:
            self._owners.note_adopted(transit.give, worker)
            self._returning.note_adopted(transit.give)
            self._send_followers(worker.connections, transit)

    def _note_adopted(self, cid: int, now: float) -> Transit | None:
        """Close our copy of a connection that has arrived; tell the old master to, if it came from there."""
        transit = self._transits.pop(cid, None)
        if transit is not None:
            close_all(transit.descriptors)
            self.figures.handed_over += 1
            self.figures.longest_seconds = max(self.figures.longest_seconds, now - transit.began_at)
            if transit.old_master is not None:
                self._sender.send(transit.old_master, Adopted(cid))
        return transit

    def _note_refused(self, worker: Worker, cid: int, now: float) -> None:
        told = "Worker (pid: %d, slot: %d) refused a connection: it ends, or has no descriptor free"
        logger.warning(told, worker.pid, worker.slot)
        self._left_alone[worker] = now + ALONE_SECONDS
        transit = self._transits.get(cid)
        if transit is not None and transit.adopter is worker:
            transit.unplace()

    def _route(self, passing: Passing, descriptors: list[int], teller: Worker | None = None) -> None:
        """Pass a reply on to the owner of its connection; drop it if the connection has ended.

        An owner sends back what it has no connection for, behind what it says of the connection. If it still is the
        owner then, it does not have the connection: to pass the reply on would only bring it back, for ever.
        """
        reply = seen(passing)
        assert isinstance(reply, Reply)
        transit, owner = self._transits.get(reply.cid), self._owners.of(reply.cid)
        if transit is not None and not transit.is_with_new_master:
            transit.replies.append((passing, descriptors))
        elif owner is not None and (owner is not teller or reply.serial == teller.serial):
            self._returning.note_passed(reply.cid, reply.serial)
            self._sender.hand_on(owner.connections, passing, descriptors)
        elif owner is None and self._new_master is not None:
            self._sender.hand_on(self._new_master, passing, descriptors)
        else:
            close_all(descriptors)
            self.figures.dropped_replies += 1

    def _pass_to_its_worker(self, cancel: CancelCall) -> None:
        """Send ``cancel`` to the worker that runs the call, here or at the old master. A call ends with its worker."""
        for worker in self._workers():
            if worker.serial == cancel.serial:
                self._sender.send(worker.connections, cancel)
                return
        if cancel.serial < self._ended.first_serial and self._old_master is not None:
            self._sender.send(self._old_master, cancel)

    # -- workers that have ended

    def note_gone(self, worker: Worker, now: float) -> None:
        """Note that ``worker`` has ended and all its messages have come; its unread connections go to others."""
        self._want_turn()
        self._grants.forget(worker)
        self._left_alone.pop(worker, None)
        for cid in self._owners.forget_worker(worker):
            self._returning.forget(cid)
        self._revive(worker, now)
        for transit in self._transits.values():
            if transit.adopter is worker:  # it has not sent `Adopted`, so it has done nothing with the connection
                transit.unplace()
        for passing, descriptors in read_back(worker):
            if isinstance(seen(passing), Reply):  # for a connection that it had just given on
                self._route(passing, descriptors)
            else:
                close_all(descriptors)
        self._returning.forget_worker(worker)
        self._tell_of_held()
        self._spread_loss(DonorGone(worker.serial, False))

    def _revive(self, worker: Worker, now: float) -> None:
        """Let the connections of a dead worker go on, as far as its ledger tells what they need."""
        self._collect(worker)
        copies = self._copies.take_all(worker)
        if worker.ledger is None or not copies:
            return
        revived = 0
        crash = Crash(now, worker.where_it_hangs(), self._pause_seconds()) if worker.has_crashed else None
        for message, descriptors in revive(copies, worker.ledger, worker.serial, self._crashes, crash):
            transit = Transit(message, descriptors, now)
            self._transits[transit.give.cid] = transit
            revived += 1
        self.has_revived |= revived > 0
        logger.info(
            "Of worker (pid: %d, slot: %d) %d connections go on, %d have ended",
            worker.pid,
            worker.slot,
            revived,
            len(copies) - revived,
        )

    def _spread_loss(self, gone: DonorGone) -> None:
        """Let every owner answer the calls that died with a worker: for each connection, behind its last reply.

        The owner of a connection in transit learns it when it has adopted, since the master may still hold replies.
        """
        self._ended.note(gone)
        self._tell_of(gone)

    def _tell_of(self, gone: DonorGone) -> None:
        for cid, owner in self._owners.that_await(gone):
            self._tell(owner.connections, gone._replace(cid=cid))
        for transit in self._transits.values():
            if gone.cid in (0, transit.give.cid):
                transit.note_loss(gone)
        if self._new_master is not None:
            self._tell(self._new_master, gone)

    def _tell(self, channel: Channel, gone: DonorGone) -> None:
        if not self._returning.hold(gone):
            self._sender.send(channel, gone)

    def _tell_of_held(self) -> None:
        for gone in self._returning.take_held():
            self._tell_of(gone)

    def _send_followers(self, channel: Channel, transit: Transit) -> None:
        """Send a new owner the replies that came meanwhile, then the ended workers whose replies it awaits."""
        replies, transit.replies = transit.replies, []
        for reply, descriptors in replies:
            self._returning.note_passed(transit.give.cid, _serial_of(reply))
            self._sender.hand_on(channel, reply, descriptors)
        living = {worker.serial for worker in self._workers()}
        for serial in sorted(transit.lost | self._ended.own(transit.give, living)):
            self._tell(channel, DonorGone(serial, False, transit.give.cid))

    # -- an upgrade, on either side

    def give_all_to(self, new_master: Channel, now: float) -> None:
        """Give everything to the new master from now on, beginning with what no adopter has read."""
        self._want_turn()
        self._new_master = new_master
        for worker in self._workers():
            self._take_back(worker)

    def lose_new_master(self) -> None:
        """Note that the new master has ended, and its connections with it."""
        self._want_turn()
        self._new_master = None

    def hear_new_master(self, message: Message, now: float) -> None:
        """Take a message of the new master about the connections that it was given."""
        self._want_turn()
        if isinstance(message, Adopted):
            self._note_adopted(message.cid, now)
        elif isinstance(message, Refused) and message.cid in self._transits:
            logger.warning(
                "The new master refused a connection: this master keeps it for %g seconds, then offers it again",
                ALONE_SECONDS,
            )
            self._transits[message.cid].is_with_new_master = False
            self._new_master_at = now + ALONE_SECONDS
        elif isinstance(message, CancelCall):
            self._pass_to_its_worker(message)

    def hear_old_master(self, channel: Channel, passing: Passing, descriptors: list[int], now: float) -> None:
        """Take a message of the old master: a connection, a reply, or the end of one of its workers."""
        self._want_turn()
        self._old_master = channel
        message = seen(passing)
        if isinstance(message, Give):
            self._take(passing, descriptors, now, channel)
        elif isinstance(message, Reply):
            self._route(passing, descriptors)
        elif isinstance(message, DonorGone):
            self._spread_loss(message)

    def note_old_master_gone(self) -> None:
        """Note that the old master, its workers, and those of the masters before it have ended."""
        self._want_turn()
        self._old_master = None
        self._spread_loss(DonorGone(self._ended.first_serial - 1, True))

    def knows(self, cid: int) -> bool:
        """Return whether the connection ``cid`` is in transit here, or has an owner that it moved to."""
        return cid in self._transits or self._owners.of(cid) is not None

    def close(self) -> None:
        """Close this process's copies, since no connection may stay open in a forked child or after the end."""
        while self._transits:
            self._transits.popitem()[1].close()
        self._copies.close()


def _serial_of(passing: Passing) -> int:
    reply = seen(passing)
    assert isinstance(reply, Reply)
    return reply.serial
