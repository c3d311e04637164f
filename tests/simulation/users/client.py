"""Made-up callers: each has one connection, makes calls, and notes what becomes of them."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import msgpack

from rpccluster.system import MSG_NOSIGNAL

from ..children.wire import ANSWERED, CALL, CANCEL, CANCELLED, GAVE_UP, LOST, REPLY
from ..world.process import NEVER, Fault
from ..world.world import World

__all__ = ["Client", "Controller"]

_KINDS = {ANSWERED: "answered", LOST: "lost with its worker", GAVE_UP: "given up", CANCELLED: "cancelled"}


class Client:
    """One caller. ``excuse`` says why its connection may end; empty: it must not."""

    def __init__(self, world: World, path: str) -> None:
        self.world = world
        self.number = next(world.client_numbers)
        self.name = f"client {self.number}"
        self.resumes_at = world.now
        self.wake_at = NEVER
        self.excuse = ""
        self.is_torn = False  # its owner has ended, or it was lost, so that no answer comes any more
        self.is_over = False
        self.is_accepted = False
        self.open_calls: dict[int, float] = {}  # by msgid: since when
        self.answers = 0
        self._begun = b""  # an answer that has come in part
        self.cancelled: set[int] = set()  # calls that it does not want any more
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        self.sock.bind(b"\0rpccluster-simulation-%d-%d" % (os.getpid(), self.number))
        try:
            self.sock.connect(path)
        except OSError:  # nobody listens now
            self.release()
            return
        if not any(process.has_listeners for process in world.processes.values()):
            self.excuse = "it waits at a socket that only a retiring worker still has"
        world.clients[self.number] = self
        world.watch(self.sock.fileno(), self)

    def call(self) -> None:
        """Make a call, if the connection still is."""
        if self.is_over:
            return
        msgid = self.world.new_msgid()
        self.open_calls[msgid] = self.world.now
        with contextlib.suppress(OSError):
            self.sock.send(CALL.pack(msgid), MSG_NOSIGNAL)

    def cancel(self) -> None:
        """Cancel the last call that has no answer."""
        if self.open_calls and not self.is_over:
            msgid = max(self.open_calls)
            self.cancelled.add(msgid)
            with contextlib.suppress(OSError):
                self.sock.send(CALL.pack(msgid | CANCEL), MSG_NOSIGNAL)

    def step(self) -> None:
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._note_end()
        data = self._begun + data
        whole = len(data) - len(data) % REPLY.size
        self._begun = data[whole:]
        for msgid, kind in REPLY.iter_unpack(data[:whole]):
            self._note_answer(msgid, kind)

    def _note_answer(self, msgid: int, kind: int) -> None:
        if kind not in _KINDS:
            raise Fault(f"{self.name} is told what is no answer: a part of one is lost, or came twice")
        self.world.count("answer", _KINDS[kind])
        if msgid not in self.open_calls:
            raise Fault(f"call {msgid} of {self.name} is answered twice, or was never made")
        if kind == CANCELLED and msgid not in self.cancelled:
            raise Fault(f"call {msgid} of {self.name} is cancelled, and nobody has asked for that")
        del self.open_calls[msgid]
        self.answers += 1
        runner = self.world.runners.pop(msgid, None)
        if kind == LOST:
            self._check_lost(msgid, runner)

    def _check_lost(self, msgid: int, runner: Any) -> None:
        """Raise `Fault` if a call is told lost that is not: it had begun, and its worker, or its owner, has died."""
        if runner is None:
            raise Fault(f"call {msgid} of {self.name} is told lost, and nobody has begun with it")
        if msgid in self.world.replied:
            raise Fault(f"call {msgid} of {self.name} is told lost, though the ledger of {runner.name} has its reply")
        if msgid in self.world.orphans:
            return
        if runner.is_alive and not self.world.masters_were_killed:  # the next but one cannot hear of it
            raise Fault(f"call {msgid} of {self.name} is told lost, though {runner.name} lives and runs it")
        self._check_not_lost(msgid, runner)

    def _check_not_lost(self, msgid: int, runner: Any) -> None:
        """Raise `Fault` if a worker has answered the call, and no process that may have had the answer has died."""
        if self.world.masters_were_killed or msgid in self.world.orphans:  # one between two others may have had it
            return
        answered_at = runner.calls.replied.get(msgid)
        if answered_at is not None and self.world.crashed_at < answered_at and not self.is_torn:
            raise Fault(f"the answer of {runner.name} to call {msgid} of {self.name} has never come")

    def _note_end(self) -> None:
        self.release()
        for msgid in self.open_calls:
            if msgid in self.world.runners:
                self._check_not_lost(msgid, self.world.runners[msgid])
        if not self.excuse:
            raise Fault(f"the connection of {self.name} ends for no reason")

    def hang_up(self) -> None:
        """Close the connection."""
        self.excuse = "it has hung up"
        self.release()

    def release(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.world.unwatch(self.sock.fileno())
            self.sock.close()
            self.world.clients.pop(self.number, None)


class Controller:
    """Somebody at the control socket, who asks for one thing and waits for the answer."""

    def __init__(self, world: World, path: str, method: str, params: list[Any]) -> None:
        self.world = world
        self.method = method
        self.number = -next(world.client_numbers)
        self.name = f"control {-self.number}"
        self.resumes_at = world.now
        self.wake_at = NEVER
        self.excuse = "it is no caller"
        self.is_torn = False
        self.is_accepted = False
        self.open_calls: dict[int, float] = {}
        self._ends = world.master_ends
        self._received = b""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        try:
            self.sock.connect(path)
            self.sock.send(msgpack.packb([0, 1, method, params]), MSG_NOSIGNAL)
        except OSError:  # no master listens now
            self.sock.close()
            return
        world.tell(self.name, f"asks for {method} {params}")
        world.clients[self.number] = self
        world.watch(self.sock.fileno(), self)

    def step(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if data and not self._is_whole():
            return
        if not data and self._ends == self.world.master_ends:
            raise Fault(f"{self.name} gets no answer to {self.method}, though no master has ended")
        if data:
            _, _, error, result = msgpack.unpackb(self._received, strict_map_key=False)
            self.world.count("control", f"{self.method}: {'refused or failed' if error else 'done'}")
            self.world.tell(
                self.name, f"is told: {error or ('done' if self.method in ('status', 'plugin.tail') else result)}"
            )
        self.release()

    def _is_whole(self) -> bool:
        with contextlib.suppress(ValueError):
            msgpack.unpackb(self._received, strict_map_key=False)
            return True
        return False

    def hang_up(self) -> None:
        """Wait no longer."""
        self.release()

    def release(self) -> None:
        if self.number in self.world.clients:
            del self.world.clients[self.number]
            self.world.unwatch(self.sock.fileno())
            self.sock.close()
