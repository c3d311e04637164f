"""The parts of a worker, on gevent's real loop, as the shared test handles them."""

from __future__ import annotations

import socket
from typing import Any

import gevent
from worker.rig import Peer, Rig, settle

from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.scoreboard import Cell, Row, Scoreboard
from rpccluster.system.clock import Timer
from rpccluster.testing import wait_until
from rpccluster.worker.accepting.acceptor import Acceptor
from rpccluster.worker.connections.adopting import Adopting
from rpccluster.worker.connections.giving import Giving
from rpccluster.worker.connections.handover_channel import HandoverChannel
from rpccluster.worker.native.stall_watch import StallWatch
from rpccluster.worker.native.watched import HubLoop

from .part import Part

__all__ = ["WORKER_PARTS"]


class AConnection(Part):
    """Whose peer has sent a call that waits, and half of another one."""

    def prepare(self) -> None:
        gevent.get_hub()
        settle()
        self.rig = Rig()
        self.peer: Peer | None = None

    def start(self) -> None:
        self.peer = self.rig.connect()
        self.peer.post("wait", 1)
        self.peer.send(b"\x94\x00")
        settle()

    def stop(self) -> None:
        if self.peer is not None:
            self.peer.close()
            self.peer.connection.close()
        self.rig.service.open(1)
        settle()

    def is_stopped(self) -> bool:
        return not self.rig.connections.open


class AnAcceptor(Part):
    """At a listener of its own; a connection that it has accepted is somebody else's."""

    acceptor: Acceptor | None = None

    def prepare(self) -> None:
        self.rig = Rig()
        settle()
        self.listeners: list[Any] = []
        self.scoreboard = Scoreboard(1)
        row = self.scoreboard.row(self.scoreboard.take_row() or 0)
        row[Cell.CONNECTION_LIMIT] = 10

    def make(self) -> None:
        self.listeners = [socket.create_server(("127.0.0.1", 0))]
        self.listeners[0].setblocking(False)
        loop = gevent.get_hub().loop
        self.acceptor = Acceptor(loop, self.listeners, self.serve, self.scoreboard, 0, None, self.rig.limits)

    def serve(self, sock: Any, peer: Any) -> None:
        sock.close()

    def start(self) -> None:
        assert self.acceptor is not None
        self.acceptor.start()
        settle()

    def stop(self) -> None:
        if self.acceptor is not None:
            self.acceptor.stop(drain=True)
        for listener in self.listeners:
            listener.close()
        settle()


class AHandover(Part):
    """Both sides of it, which have nothing to give, and have adopted nothing."""

    channel: HandoverChannel | None = None

    def prepare(self) -> None:
        self.rig = Rig()
        settle()
        self.ends = channel_pair()
        self.parts: list[Giving | Adopting] = []

    def start(self) -> None:
        rig, row, loop = self.rig, Row(self.rig.cells), gevent.get_hub().loop
        self.channel = HandoverChannel(loop, self.ends[0])
        self.parts = [
            Giving(loop, self.channel, rig.context, rig.engine, row, 1),
            Adopting(self.channel, rig.context, rig.engine, rig.connections.adopt, row),
        ]
        settle()

    def stop(self) -> None:
        for part in self.parts:
            part.stop()
        if self.channel is not None:
            self.channel.close()
        settle()

    def clean(self) -> None:
        for end in self.ends:
            end.close()


class AStallWatch(Part):
    """Over the hub's loop, with a timer that a master would watch."""

    watch: StallWatch | None = None

    def prepare(self) -> None:
        self.rig = Rig()
        self.rig.options.set(stall_warning=0.01)
        settle()
        self.timer: Timer | None = None

    def make(self) -> None:
        self.timer = Timer()
        loops = [HubLoop(gevent.get_hub())]
        self.watch = StallWatch(loops, self.rig.options, Row(self.rig.cells), self.timer)

    def start(self) -> None:
        assert self.watch is not None
        self.watch.start()

    def stop(self) -> None:
        if self.watch is not None:
            self.watch.stop()
            wait_until(lambda: self.watch is None or not self.watch.is_running)
        if self.timer is not None:
            self.timer.close()


WORKER_PARTS: list[type[Part]] = [AConnection, AnAcceptor, AHandover, AStallWatch]
