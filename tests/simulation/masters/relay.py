"""Stands between two masters of an upgrade, and makes one of them speak as another version does.

`OLDER`: the old master speaks protocol 1, which lacks `TookOver`, `Counted`, `Asked` and ``DonorGone.cid``; it leaves
as soon as it has sent `Go`. `NEWER`: both send fields, things and types of messages that today's version does not know.
`LATE`: both speak as today, and each message takes a while, as if its sender stood still in the middle of its turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgpack

from rpccluster.ipc.fdpass import IN_MEMORY_FILE, receive_packet, send_packet
from rpccluster.ipc.messages import TYPES, Asked, Counted, DonorGone, Go, Serving, TookOver
from rpccluster.master.upgrade.inherited import VARIABLE, Thing

from ..plans.plan import LATE, NEWER, OLDER
from ..world.process import NEVER
from ..world.world import World

__all__ = ["Relay", "age_environment"]

_NUMBERS = {type_: number for number, type_ in TYPES.items()}
_LAST_OF_OLDER = 15  # the last type of message that protocol 1 has
_THINGS_OF_OLDER = ("channel", "protocol", "generation", "first_serial", "listener", "control", "pidfile")
_UNKNOWN = 200  # a type of message that today's version does not know


class Relay:
    """Passes packets on between an old master and a new one, in order, and changes them."""

    name = "relay"
    wake_at = NEVER

    def __init__(self, world: World, version: str, channel: int) -> None:
        """``channel`` is the new master's end of the channel, of which this takes a copy."""
        self._world = world
        self._version = version
        self.resumes_at = world.now
        self._old = socket.socket(fileno=os.dup(channel))
        self._new, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for side in (self._old, self._new):
            side.setblocking(False)
            world.watch(side.fileno(), self)
        world.relays.append(self)

    def give_to(self, inherited: Sequence[Thing]) -> list[Thing]:
        """Return what the new master inherits: our channel in the place of the old one's."""
        end = self.theirs.fileno()
        things = [replace(each, descriptor=end) if each.name == "channel" else each for each in inherited]
        if self._version == OLDER:
            things = [each for each in things if each.name in _THINGS_OF_OLDER]
        if self._version == NEWER:
            things += [Thing("a later thing", {"a": 1}), Thing("a later socket", 5, end)]
        return things

    def step(self) -> None:
        """Pass on what has come."""
        self._pass_on(self._old, self._new, self._to_new)
        if self._old.fileno() >= 0:
            self._pass_on(self._new, self._old, self._to_old)
        if self._version == LATE:
            self.resumes_at = (
                self._world.now + self._world.random.choice((0.0, 0.01, 0.3)) * self._world.random.random()
            )

    def _pass_on(self, source: socket.socket, target: socket.socket, change: Any) -> None:
        while source.fileno() >= 0:
            try:
                data, descriptors = receive_packet(source, 262_144)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue
            if not data:
                self.release()
                return
            if not data.startswith(IN_MEMORY_FILE):
                number = msgpack.unpackb(data, unicode_errors="surrogateescape")[0]
                self._world.count("message", TYPES[number].__name__)
            packets = [(data, descriptors)] if data.startswith(IN_MEMORY_FILE) else change(data, descriptors)
            for changed, passed in packets:
                with contextlib.suppress(OSError):  # the other one has ended
                    send_packet(target, changed, passed)
            for descriptor in descriptors:
                os.close(descriptor)

    def _to_new(self, data: bytes, descriptors: list[int]) -> list[tuple[bytes, list[int]]]:
        if self._version != OLDER:
            return self._with_more(data, descriptors) if self._version == NEWER else [(data, descriptors)]
        number, *fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        if number in (_NUMBERS[Asked], _NUMBERS[Counted]) or number > _LAST_OF_OLDER:
            return []
        if number == _NUMBERS[Go]:  # one of protocol 1 waits for no answer
            with contextlib.suppress(OSError):
                send_packet(self._old, msgpack.packb([_NUMBERS[TookOver]]))
        if number == _NUMBERS[DonorGone]:
            fields = fields[:2]
        return [(msgpack.packb([number, *fields], unicode_errors="surrogateescape"), descriptors)]

    def _to_old(self, data: bytes, descriptors: list[int]) -> list[tuple[bytes, list[int]]]:
        if self._version != OLDER:
            return self._with_more(data, descriptors) if self._version == NEWER else [(data, descriptors)]
        number, *fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        if number > _LAST_OF_OLDER:
            return []
        if number == _NUMBERS[Serving]:  # the other side is today's in truth
            fields = [fields[0], 2]
        return [(msgpack.packb([number, *fields], unicode_errors="surrogateescape"), descriptors)]

    def _with_more(self, data: bytes, descriptors: list[int]) -> list[tuple[bytes, list[int]]]:
        number, *fields = msgpack.unpackb(data, unicode_errors="surrogateescape")
        defaults = TYPES[number]._field_defaults
        missing = TYPES[number]._fields[len(fields) :]
        more = [number, *fields, *(defaults[name] for name in missing), {"a later field": 1}]
        packets = [(msgpack.packb(more, unicode_errors="surrogateescape"), descriptors)]
        if self._world.random.random() < 0.3:
            packets.insert(0, (msgpack.packb([_UNKNOWN, 7, "later"]), self._something()))
        return packets

    def _something(self) -> list[int]:
        return [self._new.fileno()] if self._world.random.random() < 0.3 else []

    def release(self) -> None:
        """Close both sides."""
        for side in (self._old, self._new):
            if side.fileno() >= 0:
                self._world.unwatch(side.fileno())
                side.close()
        self.theirs.close()


def age_environment() -> None:
    """Change the list that an old master has left in the environment to what one of protocol 1 leaves."""
    told = json.loads(os.environ[VARIABLE])
    for thing in told["things"]:
        if thing["name"] == "settings":  # an older master leaves none, so nobody would close its descriptor
            os.close(thing["descriptor"])
    for name in ("things", "protocol"):
        told.pop(name)
    os.environ[VARIABLE] = json.dumps(told)
