"""Random and mutated messages through a worker's connections, on gevent's real loop, and through the decoders.

Run by hand, from the checkout; nothing must escape but the decoder's own errors, and no memory::

    .venv/bin/python tests/fuzz.py --messages 1000000 --seed 1

`run` is what the suite runs a little of.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections import Counter
from typing import Any

import gevent
import msgpack
from protocol.differential import check
from worker.rig import Gated, Peer, Rig, until

from rpccluster.log import logger
from rpccluster.system import resident_bytes

__all__ = ["Fuzz", "run"]

MOST_GROWTH_BYTES = 5 << 20
WARM_UP_SHARE = 0.2
MESSAGES_AT_ONCE = 8
TURNS = 400  # of the loop, in which a connection must come to rest
CHECK_EVERY = 10  # streams

_VALUES: list[Any] = [
    None, True, 0, -1, 255, 2**32, 2**64 - 1, -(2**63), 1.5, float("nan"), "", "ä" * 20, "\udcff", b"", b"x" * 300, [],
    [[]], [1, [2, [3]]], {}, {"a": 1, 2: [None], None: {b"k": 1.5}}, list(range(40)), {n: str(n) for n in range(20)},
    msgpack.ExtType(5, b"abc"), msgpack.Timestamp(5, 6), [0.5] * 2000, [{}] * 2000, "x" * 20_000,
]  # fmt: skip
_METHODS = ["echo", "echo", "large", "rpc.ping", "rpc.discover", "", "wait", "_x", "nope", "\udcff"]
_TIMEOUTS: list[Any] = [
    5,
    5.0,
    5.0,
    1e8,
    300,
    0,
    -1,
    -0.5,
    float("nan"),
    float("inf"),
    1e300,
    -1e300,
    2**64 - 1,
    "3",
    None,
]
_HEADERS = [b"\x91", b"\x81\x01", b"\x90", b"\x80", b"\xdc\x00\x01", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf"]


class _Service(Gated):
    """As that, but nobody waits for ever, and nothing is noted."""

    def wait(self, name: Any) -> Any:
        gevent.sleep(0)
        return name

    def echo(self, value: Any = None) -> Any:
        return value

    def large(self, size: int = 5000) -> bytes:
        return b"x" * (size if type(size) is int and 0 <= size < 100_000 else 0)


class _Tracebacks(logging.Handler):
    """Counts log lines by their beginning; keeps the tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[str(record.msg)[:30]] += 1
        if record.exc_info:
            self.found.append(logging.Formatter().format(record))


class Source:
    """Messages for a worker, by a random choice; ``made`` counts them."""

    def __init__(self, choice: random.Random) -> None:
        self._choice = choice
        self._packer = msgpack.Packer(unicode_errors="surrogateescape")
        self.made = 0

    def message(self) -> bytes:
        """A message, mostly a right one."""
        self.made += 1
        choice = self._choice
        if choice.random() < 0.05:
            return choice.randbytes(choice.randint(1, 60))
        params = choice.sample(_VALUES, choice.randint(0, 2))
        kind, method = choice.choice((0, 0, 0, 0, 2, 1)), choice.choice(_METHODS)
        for _ in range(choice.choice((0, 0, 0, 1, 1, 2))):
            method, params = "rpc.call", self._bounded(method, params)
        message = [kind, choice.choice((1, 1, 2**32 - 1, 2**32)), method, params] if kind != 2 else [2, method, params]
        return bytes(self._packer.pack(message))

    def _bounded(self, method: Any, params: Any) -> list[Any]:
        """The params of a call with a deadline, mostly right ones."""
        choice = self._choice
        inside = [method, params, {"timeout": choice.choice(_TIMEOUTS)}]
        if choice.random() < 0.2:
            inside[choice.randrange(3)] = choice.choice(_VALUES)
        return inside[: choice.choice((3, 3, 3, 3, 2, 1))]

    def mutate(self, stream: bytearray) -> None:
        """Something is lost, doubled, put in another's place, or wrapped."""
        choice = self._choice
        at, size = choice.randrange(len(stream) + 1), choice.randint(0, 6)
        wedge = choice.choice(
            (
                choice.randbytes(choice.randint(0, 6)),
                choice.choice(_HEADERS) * choice.randint(1, 150),
                bytes([choice.randrange(0x80, 0x100)]),
                bytes(stream[at : at + choice.randint(0, 100)]) * choice.randint(1, 10),
            )
        )
        stream[at : at + size] = wedge


class Fuzz:
    """A worker, and what is sent to it. ``faults`` is all that should not have been."""

    def __init__(self, seed: int) -> None:
        self._choice = random.Random(seed)
        self._source = Source(self._choice)
        self._rig = Rig(_Service(), max_message_size=1 << 16, max_pending_calls=20)
        self._good = self._rig.connect()
        self.log = _Tracebacks()
        self.streams = self.replies = 0
        self.faults: list[str] = []
        gevent.get_hub().handle_error = self._note

    @property
    def messages(self) -> int:
        """Number of messages so far."""
        return self._source.made

    def _note(self, context: Any, kind: Any, error: Any, traceback: Any) -> None:
        self.faults.append(f"{context}: {kind.__name__}: {error}")

    def go_on(self) -> None:
        """One connection: a stream that is mostly right, in pieces, and what comes of it."""
        stream = bytearray(b"".join(self._source.message() for _ in range(self._choice.randint(1, MESSAGES_AT_ONCE))))
        for _ in range(self._choice.choice((0, 1, 1, 1, 2, 5))):
            self._source.mutate(stream)
        self.streams += 1
        if self.streams % CHECK_EVERY == 0:
            check(self._choice.randbytes(1) + stream)
        self._send(bytes(stream))
        if self.streams % CHECK_EVERY == 0 and self._good.call("echo", self.streams) != self.streams:
            self.faults.append("a good caller got a wrong reply")
        self._good.replies.clear()

    def _send(self, stream: bytes) -> None:
        peer = self._rig.connect()
        for piece in self._pieces(stream):
            peer.sock.send(piece)
            if self._choice.random() < 0.5:
                gevent.sleep(0)
            peer.look()
            if peer.is_at_end:
                break
        else:
            peer.shut()
        self._wait_end(peer)
        self.replies += len(peer.replies)
        peer.close()
        self._rig.peers.pop()

    def _pieces(self, stream: bytes) -> list[bytes]:
        places = sorted(self._choice.choices(range(len(stream) + 1), k=self._choice.choice((0, 0, 1, 3, 20))))
        pieces = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)])]
        return [piece for piece in pieces if piece]

    def _wait_end(self, peer: Peer) -> None:
        for _ in range(TURNS):
            peer.look()
            if peer.is_at_end and peer.connection.is_closed:
                return
            gevent.sleep(0)
        until(lambda: peer.look() is not None and peer.is_at_end, "a connection that is not served any more is closed")

    def close(self) -> None:
        """Raises AssertionError for what should not have been."""
        until(lambda: self._rig.engine.is_quiet and self._rig.connections.open == {self._good.connection})
        self._rig.close()
        del gevent.get_hub().handle_error
        assert self.faults + self.log.found == []


def run(seed: int, messages: int, seconds: float = 1e9) -> tuple[Fuzz, int]:
    """Send ``messages``, or for so many seconds. Returns it, and the bytes that the process has grown by meanwhile."""
    fuzz, end_at, warm_bytes = Fuzz(seed), time.monotonic() + seconds, 0
    logger.addHandler(fuzz.log)
    logger.propagate = False
    try:
        while fuzz.messages < messages and time.monotonic() < end_at:
            fuzz.go_on()
            if not warm_bytes and fuzz.messages >= WARM_UP_SHARE * messages:
                warm_bytes = resident_bytes()
        grown = resident_bytes() - warm_bytes if warm_bytes else 0
        fuzz.close()
    finally:
        logger.removeHandler(fuzz.log)
        logger.propagate = True
    return fuzz, grown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Random and mutated messages through a worker's connections.")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    fuzz, grown = run(options.seed, options.messages, options.seconds)
    print(f"{fuzz.messages} messages on {fuzz.streams} connections, {fuzz.replies} replies", end=", ")
    print(f"in {time.monotonic() - began:.0f} s by seed {options.seed}; grown by {grown / 1024:.0f} KiB after warm-up")
    for line, count in fuzz.log.lines.most_common():
        print(f"{count:9d} × {line}…")
    assert grown < MOST_GROWTH_BYTES


if __name__ == "__main__":
    main()
