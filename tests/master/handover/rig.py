"""A broker with made-up workers that speak over real channels, and the time."""

from __future__ import annotations

import os
import socket
from typing import Any

from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.messages import (
    Accept,
    Adopted,
    Give,
    Message,
    Release,
)
from rpccluster.ipc.scoreboard import Cell
from rpccluster.master.handover.broker import Broker
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.loop import Loop

from ..made_up import ready, retiring

__all__ = ["CID", "Rig", "given_to", "heard", "owned"]

CID = 7


class Rig:
    """A broker, its workers, and the time."""

    def __init__(self, first_serial: int = 1, *, holds: bool = False) -> None:
        self.now = 100.0
        self.loop = Loop()
        self.workers: list[RPCWorker] = []
        self.broker = Broker(self.loop, lambda: self.workers, first_serial, holds=holds)
        self.asked: dict[RPCWorker, Channel] = {}  # their ends of the channels on which they are asked
        self.channels: list[Channel] = []
        self.clients: dict[int, socket.socket] = {}

    # -- the master's side

    def add(self, worker: RPCWorker, connections: int = 0, limit: int = 1000) -> RPCWorker:
        """``worker`` with that many connections, of ``limit`` that it may have."""
        worker.connections, worker.far_end = self.pair()
        worker.channel, self.asked[worker] = self.pair()
        worker.row[Cell.CONNECTIONS], worker.row[Cell.CONNECTION_LIMIT] = connections, limit
        self.workers.append(worker)
        return worker

    def pair(self) -> tuple[Channel, Channel]:
        """Two ends, the first of which the master watches."""
        ours, theirs = channel_pair()
        self.channels += [ours, theirs]
        self.loop.watch(ours, lambda: None)
        return ours, theirs

    def turn(self, *, may_move: bool = True) -> None:
        self.broker.turn(self.now, may_move=may_move)

    def hear(self) -> None:
        """All that workers have said."""
        for worker in self.workers:
            for message, descriptors in worker.connections.receive_unopened():
                self.broker.hear(worker, message, descriptors, self.now)

    def releases(self) -> dict[RPCWorker, int]:
        """How many each was asked for since the last look."""
        return {worker: release.number for worker, release in self.granted()}

    def granted(self) -> list[tuple[RPCWorker, Release]]:
        """Likewise, with all that it was told of it."""
        said = [(worker, message) for worker, asked in self.asked.items() for message, _ in asked.receive()]
        return [(worker, message) for worker, message in said if isinstance(message, Release)]

    def bury(self, worker: RPCWorker) -> None:
        """``worker`` has ended; all that it said is heard first."""
        self.hear()
        self.workers.remove(worker)
        self.broker.note_gone(worker, self.now)

    # -- the workers' side

    def gives(self, donor: RPCWorker, cid: int = CID, awaited: Any = (), data: bytes = b"") -> Give:
        """``donor`` gives a connection away; what its client is called lets it be told from others."""
        give = Give(cid, [], False, b"in", data or b"out", [list(call) for call in awaited])
        with self.client(cid) as theirs:
            donor.far_end.send(give, [theirs.fileno()])
        donor.row[Cell.CONNECTIONS] = max(0, donor.connection_count - 1)
        self.hear()
        return give

    def client(self, cid: int) -> socket.socket:
        """The socket of a new client."""
        if cid in self.clients:
            self.clients[cid].close()
        self.clients[cid], theirs = socket.socketpair()
        return theirs

    def read(self, worker: RPCWorker) -> list[Message]:
        """What has come to ``worker``; each connection is looked at whether it is the right one."""
        found = []
        for message, descriptors in worker.far_end.receive():
            found.append(message)
            for descriptor in descriptors:
                assert isinstance(message, Give)
                os.write(descriptor, b"it is me")
                os.close(descriptor)
                assert self.clients[message.cid].recv(100) == b"it is me"
        return found

    def adopts(self, worker: RPCWorker) -> list[Message]:
        """``worker`` reads, adopts what it was given, and is heard."""
        found = self.read(worker)
        for message in found:
            if isinstance(message, Give):
                worker.row[Cell.ADOPTED] += 1
                worker.row[Cell.CONNECTIONS] += 1
                worker.far_end.send(Adopted(message.cid))
        self.hear()
        return found

    def says(self, worker: RPCWorker, message: Message) -> None:
        worker.far_end.send(message)
        self.hear()

    def fill(self, worker: RPCWorker) -> int:
        """Leave no room in the channel to ``worker``; return how many messages that took."""
        count = 0
        while not worker.connections.wants_to_write:
            worker.connections.send(Accept())
            count += 1
        return count

    def close(self) -> None:
        self.broker.close()
        for channel in self.channels:
            channel.close()
        for client in self.clients.values():
            client.close()
        self.loop.close()


def given_to(rig: Rig, *workers: RPCWorker) -> list[int]:
    """How many connections each has been sent."""
    return [sum(isinstance(message, Give) for message in rig.read(worker)) for worker in workers]


def owned(rig: Rig, cid: int = CID, awaited: Any = ()) -> RPCWorker:
    """A worker that has adopted a connection."""
    donor = rig.add(retiring())
    owner = rig.add(ready())
    rig.gives(donor, cid, awaited)
    rig.turn()
    rig.adopts(owner)
    rig.bury(donor)
    rig.read(owner)
    return owner


def heard(channel: Channel) -> list[Message]:
    """What has come, its descriptors closed."""
    found = channel.receive()
    for _, descriptors in found:
        for descriptor in descriptors:
            os.close(descriptor)
    return [message for message, _ in found]
