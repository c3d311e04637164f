"""What a hostile peer may send, and the process that sends it: the same on many connections at once.

Run as a program, ``attacks.py ADDRESS ATTACK CONNECTIONS SECONDS``, it prints an `Outcome` as JSON. In a process
of its own, so that neither its work nor its memory is taken for the cluster's, or for a well-behaved client's.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Callable

import msgpack

from rpccluster.address import parse_address
from rpccluster.testing import wait_until

__all__ = ["ATTACKS", "Attack", "Outcome", "Sender", "colliding_timestamps", "map_of"]

NOT_RPC = "not_messagepack_rpc"
MIB = 1 << 20
MILLION = 1_000_000
DIGITS = 64
TOO_DEEP = "a message nested more than 100 deep (max_depth)"
TOO_LARGE = f"a message of more than {16 * MIB} bytes (max_message_size)"
BROKEN = "bytes that are not MessagePack, or pass max_message_size (ValueError)"
NO_KEY = "a map with a map in a key, which no dict can have"
COLLIDING = "a map with more than 100 keys whose hashes are those of others"
ECHO = b"\x94\x00\x07\xa4echo\x91"  # a call; the one value that is missing is its param
ECHOED = b"\x94\x01\x07\xc0"  # its reply; likewise
PING = msgpack.packb([0, 7, "rpc.ping", []])
NOTIFICATION = msgpack.packb([2, "rpc.ping", []])
PONG = msgpack.packb([1, 7, None, "pong"])


@dataclass(frozen=True)
class Attack:
    """What is sent on each connection, and all the replies it should earn.

    If these are none it should be closed. ``limit`` is what `status` counts it by, if it does. If ``leaves``, the
    peer ends when it has sent that; if ``is_endless``, it asks for more than can be done in time, and the first reply
    will do.
    """

    sends: Callable[[], bytes]
    limit: str = ""
    earns: Callable[[], bytes] = bytes
    leaves: bool = False
    is_endless: bool = False


@dataclass
class Outcome:
    """What became of the connections; ``slowest_seconds`` is until the last one was answered, or closed."""

    answered: int = 0
    closed: int = 0
    waiting: int = 0  # neither
    slowest_seconds: float = 0.0
    received_bytes: int = 0
    faults: list[str] = field(default_factory=list)


def _bare(data: bytes, limit: str = NOT_RPC) -> Attack:
    """What is no call."""
    return Attack(lambda: data, limit)


def _param(value: bytes, limit: str = NOT_RPC) -> Attack:
    """A call whose param ends the connection."""
    return Attack(lambda: ECHO + value, limit)


def _refused(value: Callable[[], bytes], why: str, limit: str = NOT_RPC) -> Attack:
    """A call whose param cannot be read: its caller is told."""
    return Attack(lambda: ECHO + value(), limit, lambda: msgpack.packb([1, 7, f"ArgumentError: found {why}", None]))


def _echoed(value: Callable[[], bytes]) -> Attack:
    """A call whose param is strange, and comes back."""
    return Attack(lambda: ECHO + value(), earns=lambda: ECHOED + value())


def map_of(*keys: bytes) -> bytes:
    """A map of these keys, whose values are all nil."""
    return b"\xdf" + struct.pack(">I", len(keys)) + b"".join(key + b"\xc0" for key in keys)


def colliding_floats(count: int) -> list[bytes]:
    """Keys whose hashes have the same low bits; of those that are wholly the same there are not many."""
    return [b"\xcb" + struct.pack(">d", 2.0 ** (61 * exponent) * number) for number in range(1, count // 30 + 1)
            for exponent in range(-15, 15)]  # fmt: skip


def colliding_ints(count: int) -> list[bytes]:
    """Likewise."""
    return [b"\xcf" + struct.pack(">Q", number << 40) for number in range(1, count + 1)]


def colliding_timestamps(count: int) -> list[bytes]:
    """Keys that all have one hash if that is the hash of the tuple of their numbers: xxHash, solved for a lane."""
    word, prime = 1 << 64, (1 << 61) - 1
    p1, p2, p5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
    undo_p1, undo_p2 = pow(p1, -1, word), pow(p2, -1, word)

    def unmixed(lane: int) -> int:
        lane = lane * undo_p1 % word
        return (lane >> 31 | lane << 33) % word

    keys: list[bytes] = []
    for nanoseconds in range(10 * count):
        seconds = (unmixed((unmixed(4711) - nanoseconds * p2) % word) - p5) * undo_p2 % word
        seconds -= word if seconds >= word // 2 else 0
        if abs(seconds) < prime:  # it is its own hash
            keys.append(b"\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds))
    return keys[:count]


def colliding_arrays(count: int) -> list[bytes]:
    """Likewise, of arrays that become tuples."""
    keys = []
    for packed in colliding_timestamps(count):
        nanoseconds, seconds = struct.unpack(">Iq", packed[3:])
        keys.append(b"\x92\xd3" + struct.pack(">q", seconds) + b"\xce" + struct.pack(">I", nanoseconds))
    return keys


#: By name.
ATTACKS: dict[str, Attack] = {
    "100,000 deep": _refused(lambda: b"\x91" * 100_000, TOO_DEEP, "max_depth"),
    "100,000 deep, bare": _bare(b"\x91" * 100_000, "max_depth"),
    "100,000 deep, maps": _refused(lambda: b"\x81\x01" * 100_000, TOO_DEEP, "max_depth"),
    "500 array16 headers of 65,535": _refused(lambda: b"\xdc\xff\xff" * 500, TOO_DEEP, "max_depth"),
    "500 array16 headers of 65,535, bare": _bare(b"\xdc\xff\xff" * 500, "max_depth"),
    "a million array32 headers": _param(b"\xdd\xff\xff\xff\xff" * MILLION, "max_message_size"),
    "a million array32 headers, bare": _bare(b"\xdd\xff\xff\xff\xff" * MILLION, "max_message_size"),
    "a million array32 headers of 983,040": _param(
        b"\xdd" + struct.pack(">I", MILLION) + b"\xdd\0\x0f\0\0" * MILLION, "max_message_size"
    ),
    "1 MiB of empty maps": _echoed(lambda: b"\xdd" + struct.pack(">I", MIB) + b"\x80" * MIB),
    "1 MiB of empty maps, bare": _bare(b"\x80" * MIB),
    "100 MiB str": _refused(
        lambda: b"\xdb" + struct.pack(">I", 100 * MIB) + bytes(20 * MIB), TOO_LARGE, "max_message_size"
    ),
    "4 GiB str": _param(b"\xdb\xff\xff\xff\xff", "max_message_size"),
    "4 GiB bin": _param(b"\xc6\xff\xff\xff\xff", "max_message_size"),
    "4 GiB ext": _param(b"\xc9\xff\xff\xff\xff\x01", "max_message_size"),
    "4 GiB map": _param(b"\xdf\xff\xff\xff\xff", "max_message_size"),
    "16 MiB str that never ends": Attack(
        lambda: ECHO + b"\xdb" + struct.pack(">I", 16 * MIB - 20) + b"x" * (16 * MIB - 100), leaves=True
    ),
    "ext of a negative type": _refused(lambda: b"\xd4\x85\x00", BROKEN),
    "ext of any type": _echoed(lambda: b"\xc7\x03\x7fabc"),
    "timestamp of a wrong size": _refused(lambda: b"\xc7\x05\xff" + bytes(5), BROKEN),
    "timestamp of too many nanoseconds": _refused(lambda: b"\xd7\xff" + b"\xff" * 8, BROKEN),
    "0xc1": _param(b"\xc1"),
    "0xc1, bare": _bare(b"\xc1"),
    "an array as a map key": Attack(lambda: ECHO + b"\x81\x91\x01\xc0", earns=lambda: ECHOED + b"\x81\x91\x01\xc0"),
    "a map as a map key": _refused(lambda: map_of(b"\x81\x01\x02"), NO_KEY),
    "float keys that collide": _echoed(lambda: map_of(*colliding_floats(100_000))),
    "int keys that collide": _echoed(lambda: map_of(*colliding_ints(100_000))),
    "timestamp keys that collide": _echoed(lambda: map_of(*colliding_timestamps(70_000))),
    "array keys that collide": _refused(lambda: map_of(*colliding_arrays(70_000)), COLLIDING),
    "a million nils": _bare(b"\xc0" * MILLION),
    "a million pings": Attack(lambda: PING * MILLION, earns=lambda: PONG * MILLION, is_endless=True),
    "a million notifications": Attack(
        lambda: (NOTIFICATION * 999 + PING) * 1000, earns=lambda: PONG * 1000, is_endless=True
    ),
    "1000 calls of one msgid": Attack(lambda: PING * 1000, earns=lambda: PONG * 1000),
    "100 messages and a torn one": Attack(lambda: PING * 100 + PING[:-1], earns=lambda: PONG * 100, leaves=True),
}


class _Connection:
    """One that attacks."""

    def __init__(self, address: tuple[str, int], attack: Attack, sends: bytes, earns: bytes) -> None:
        self.sock = socket.create_connection(address, 10)
        self.sock.setblocking(False)
        self._attack = attack
        self._unsent = memoryview(sends)
        self._earns = earns
        self.received = 0
        self.fault = ""
        self.is_closed = False

    @property
    def is_answered(self) -> bool:
        """Whether it got what it can expect."""
        return bool(self._earns) and self.received >= (1 if self._attack.is_endless else len(self._earns))

    @property
    def has_all(self) -> bool:
        """Whether nothing more will come."""
        return self.is_closed or (bool(self._earns) and self.received == len(self._earns))

    @property
    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def go_on(self, events: int) -> None:
        """Send and receive what can be."""
        try:
            if events & selectors.EVENT_READ:
                self._receive()
            if events & selectors.EVENT_WRITE and not self.is_closed:
                self._send()
        except BlockingIOError:
            pass
        except OSError:
            self.is_closed = True

    def _send(self) -> None:
        self._unsent = self._unsent[self.sock.send(self._unsent) :]
        if not self._unsent and self._attack.leaves:
            self.sock.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        data = self.sock.recv(1 << 18)
        self.is_closed = not data
        if data != self._earns[self.received : self.received + len(data)]:
            self.fault = f"found {data[:DIGITS]!r} after {self.received} bytes"
        self.received += len(data)


def _attack(address: str, attack: Attack, count: int, seconds: float) -> Outcome:
    target: Any = parse_address(address)
    sends, earns = attack.sends(), attack.earns()
    connections = [_Connection((target.host, target.port), attack, sends, earns) for _ in range(count)]
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.sock, connection.events, connection)
        slowest = _run(selector, set(connections), began, seconds)
    outcome = Outcome(slowest_seconds=slowest)
    for connection in connections:
        outcome.answered += connection.is_answered
        outcome.closed += connection.is_closed and not connection.is_answered
        outcome.waiting += not (connection.is_closed or connection.is_answered)
        outcome.received_bytes += connection.received
        outcome.faults += [connection.fault] if connection.fault else []
        connection.sock.close()
    return outcome


def _run(selector: selectors.BaseSelector, waiting: set[_Connection], began: float, seconds: float) -> float:
    """Until every connection has all it can get, or ``seconds`` are over. Returns when the last was served."""
    slowest = 0.0
    unserved = set(waiting)
    while waiting and time.monotonic() - began < seconds:
        for key, events in selector.select(0.1):
            connection: _Connection = key.data
            connection.go_on(events)
            if connection in unserved and (connection.is_answered or connection.is_closed):
                unserved.discard(connection)
                slowest = time.monotonic() - began
            if connection.has_all:
                selector.unregister(connection.sock)
                waiting.discard(connection)
            elif key.events != connection.events:
                selector.modify(connection.sock, connection.events, connection)
    return slowest


class Sender:
    """The process that attacks ``address`` with ``count`` connections, for at most ``seconds``."""

    def __init__(self, address: str, name: str, count: int, seconds: float) -> None:
        command = [sys.executable, __file__, address, name, str(count), str(seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def outcome(self, seconds: float) -> Outcome:
        """Wait for it."""
        try:
            wait_until(lambda: self._process.poll() is not None, seconds, "the attack is over")
            assert self._process.stdout is not None
            return Outcome(**json.loads(self._process.stdout.read()))
        finally:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()


if __name__ == "__main__":
    found = _attack(sys.argv[1], ATTACKS[sys.argv[2]], int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(asdict(found)))
