"""The brokers of a master: one for each kind of processes that serve connections. Runs in the master.

A connection goes on with a process of the kind that it came to. Between two masters of an upgrade all travel on one
channel, and a message that says nothing of the kind belongs to the broker that knows its connection.
"""

from __future__ import annotations

from collections.abc import Mapping

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import Adopted, DonorGone, Give, Message, Reply
from rpccluster.ipc.packets import Passing, close_all, seen
from rpccluster.master.handover.broker import Broker

__all__ = ["Brokers"]


class Brokers:
    """All brokers by their kinds; ``workers`` is the workers'."""

    def __init__(self, workers: Broker, others: Mapping[str, Broker]) -> None:
        self.workers = workers
        self._by_kind = {"": workers, **others}
        self.all = list(self._by_kind.values())

    def of(self, kind: str) -> Broker:
        """Return the broker of a kind's processes; ``rpc`` has the workers'."""
        return self._by_kind.get(kind, self.workers)

    @property
    def wake_at(self) -> float:
        """When `turn` must be called if nothing happens before (monotonic seconds)."""
        return min([broker.wake_at for broker in self.all])

    @property
    def in_transit(self) -> int:
        """Number of connections that no process serves."""
        return sum(broker.in_transit for broker in self.all)

    def turn(self, now: float, *, may_move: bool) -> None:
        """Let each place and ask for connections."""
        for broker in self.all:
            broker.turn(now, may_move=may_move)

    def give_all_to(self, new_master: Channel, now: float) -> None:
        """Give everything to the new master from now on."""
        for broker in self.all:
            broker.give_all_to(new_master, now)

    def lose_new_master(self) -> None:
        """Note that the new master has ended."""
        for broker in self.all:
            broker.lose_new_master()

    def hear_new_master(self, message: Message, now: float) -> None:
        """Take a message of the new master about a connection; only the broker that has it heeds that."""
        for broker in self.all:
            broker.hear_new_master(message, now)

    def hear_old_master(self, channel: Channel, passing: Passing, descriptors: list[int], now: float) -> None:
        """Take a message of the old master: a connection, a reply, or the end of one of its processes."""
        message = seen(passing)
        if isinstance(message, DonorGone):
            for broker in self.all:
                broker.hear_old_master(channel, passing, descriptors, now)
        elif isinstance(message, Give) and message.kind not in self._by_kind:  # no process here will ever serve it
            close_all(descriptors)
            channel.send(Adopted(message.cid))
        else:
            self._broker_for(message).hear_old_master(channel, passing, descriptors, now)

    def _broker_for(self, message: Message) -> Broker:
        if isinstance(message, Give):
            return self._by_kind[message.kind]
        if isinstance(message, Reply):
            return next((broker for broker in self.all if broker.knows(message.cid)), self.workers)
        return self.workers

    def note_old_master_gone(self) -> None:
        """Note that the old master has ended, and its processes with it."""
        for broker in self.all:
            broker.note_old_master_gone()

    def close(self) -> None:
        """Close this process's copies of all connections in transit."""
        for broker in self.all:
            broker.close()
