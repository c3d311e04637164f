"""A worker's engine and connections on gevent's real loop, and the peers that speak to it over socket pairs.

Nothing is patched: the tests' process stays as it is. A test waits until nothing more can happen by itself
(`settle`), moves the made-up clock of the connections' deadlines (`Rig.jump`), or turns the loop until a condition
holds (`until`).
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import socket
import struct
import termios
import time
from typing import Any, Callable

import gevent
import gevent.event
import msgpack

from rpccluster.ipc.scoreboard import LIMITS, Row, Scoreboard
from rpccluster.log import LogFiles
from rpccluster.protocol.codec import map_of_any_keys
from rpccluster.rate_limit import LogLimiter
from rpccluster.worker.access.access import Access
from rpccluster.worker.access.rates import Rates
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.connections.table import Connections
from rpccluster.worker.hot.choice import engine_class
from rpccluster.worker.limits import Limits
from rpccluster.worker.live_options import LiveOptions
from rpccluster.worker.native.kinds import NativeKinds
from rpccluster.worker.service.registry import Registry
from rpccluster.worker.service.wrapper import Wrapper
from rpccluster.worker.tally import Tally

__all__ = ["Gated", "Peer", "Rig", "settle", "tcp_pair", "until", "wait_read"]

ENGINE = "auto"  # the engine of new rigs
SWEEP_SECONDS = 0.5  # between two sweeps of a worker


def until(condition: Callable[[], Any], what: str = "", seconds: float = 20.0) -> Any:
    """Turn the loop until ``condition`` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not so after {seconds:g} seconds: {what}"
        gevent.sleep(0.001)


def settle() -> None:
    """Turn the loop until no callback is pending and no watched socket is ready. Timers that are not due wait on."""
    gevent.idle(gevent.get_hub().loop.MINPRI)  # such a watcher runs when a poll has found nothing else to do


class Gated:
    """A service whose methods wait until the test says so."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.ended: list[Any] = []
        self.gates: dict[Any, gevent.event.Event] = {}
        self.most_at_once = 0

    def echo(self, value: Any = None) -> Any:
        self.began.append(value)
        return value

    def wait(self, name: Any) -> Any:
        """Until the test opens the gate of that name."""
        self.began.append(name)
        self.most_at_once = max(self.most_at_once, len(self.began) - len(self.ended))
        self.gates.setdefault(name, gevent.event.Event()).wait()
        self.ended.append(name)
        return name

    def open(self, *names: Any) -> None:
        for name in names:
            self.gates.setdefault(name, gevent.event.Event()).set()

    def open_all(self) -> None:
        """Let everything end that waits."""
        self.open(*self.gates)

    def sleep(self, seconds: float) -> float:
        gevent.sleep(seconds)
        return seconds

    def spin(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        self.ended.append("spin")

    def large(self, size: int) -> bytes:
        self.began.append(size)
        return b"x" * size

    def fail(self, message: str = "boom") -> None:
        raise RuntimeError(message)


class Rig:
    """The inside of one worker. Options by the names of the configuration."""

    def __init__(
        self,
        service: Any = None,
        *,
        call_timeout: float = 0,
        max_greenlets: int = 1000,
        max_pending_calls: int = 1024,
        max_message_size: int = 16 << 20,
        max_depth: int = 100,
        idle_timeout: float = 0,
        message_timeout: float = 0,
        write_timeout: float = 0,
        call_limit: int = 0,
        threads: int = 8,
        thread_queue: int = 100,
        counts: Any = None,
        ledger: Any = None,
    ) -> None:
        """``counts`` is the row of the file of the counters; without one it counts nothing.

        ``ledger`` is the memory and the shape of one, for the compiled engine.
        """
        self.service = service or Gated()
        self.now = 1000.0  # what the clock of the connections says
        scoreboard = Scoreboard(1)
        scoreboard.take_row()
        self.cells = scoreboard.row(0).cells
        self.limit_reached = 0
        self.limits = Limits(self.cells, LogLimiter(0.0))
        self.options = LiveOptions(
            call_timeout=call_timeout,
            stall_warning=0.0,
            max_greenlets=max_greenlets,
            max_pending_calls=max_pending_calls,
            max_message_size=max_message_size,
            max_depth=max_depth,
            idle_timeout=idle_timeout,
            message_timeout=message_timeout,
            write_timeout=write_timeout,
            worker_connections=10_000,
            threads=threads,
            thread_queue=thread_queue,
            tcp_keepalive=60,
            authkeys="",
            auth_timeout=5.0,
            access="",
            proxy_from="loopback",
            max_requests=0,
            max_requests_jitter=0,
            log_level="info",
            log_format="text",
            access_log="off",
        )
        self.logs = LogFiles("", "")
        self.retired: list[str] = []  # the reasons
        retire = self.retired.append
        self.native = NativeKinds(gevent.get_hub().loop, self.options, self.limits, Row(self.cells), retire)
        wrapper = Wrapper(self.options, self.logs, self.limits)
        self.registry = Registry(self.service, call_timeout, wrapper, self.native.entry)
        self.access = Access(self.registry, self.limits, Rates(scoreboard, 0))
        self.options.follow(lambda options, changed: self.access.set_rules(options.access))
        self.engine = engine_class(ENGINE)(
            self.registry,
            self.cells,
            self.options,
            self.access,
            on_refused=self.limits.note_refused,
            call_limit=call_limit,
            on_call_limit=self._reach_limit,
            tally=Tally(counts, Row(self.cells)) if counts else None,
            ledger=ledger,
        )
        self.native.serve(self.engine.go_on)
        self.context = ConnectionContext(self.options, self.limits, clock=lambda: self.now)
        self.connections = Connections(self.context, self.engine)
        self.options.follow(lambda options, changed: self.registry.wrap_all(options.call_timeout))
        self.peers: list[Peer] = []

    def jump(self, seconds: float) -> None:
        """Let ``seconds`` pass by the clock of the connections, sweeping as a worker does. The loop does not turn."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + SWEEP_SECONDS)
            self.connections.sweep()

    def hold_up(self, seconds: float) -> None:
        """Let ``seconds`` pass in which nothing was done, as when a method keeps the loop."""
        self.now += seconds
        self.connections.sweep()

    def limit_counts(self) -> dict[str, int]:
        """How often each limit was reached, of those that were."""
        return {name: self.cells[cell] for name, cell in LIMITS.items() if self.cells[cell]}

    def _reach_limit(self) -> None:
        self.limit_reached += 1

    def connect(self, *, tcp: bool = False, buffer_bytes: int = 0) -> Peer:
        """A new peer, over TCP if asked for; with small kernel buffers."""
        theirs, ours = tcp_pair() if tcp else socket.socketpair()
        if buffer_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        raw = _socket.socket(fileno=theirs.detach())
        raw.setblocking(False)
        peer = Peer(ours, self.connections.add(raw, ("127.0.0.1", 4711)))
        self.peers.append(peer)
        return peer

    def close(self) -> None:
        """End what waits, and every connection."""
        if isinstance(self.service, Gated):
            self.service.open_all()
        for peer in self.peers:
            peer.close()
            peer.connection.close()
        self.options.set(max_greenlets=0, threads=0)  # idle ones end: what their frames know would live as long as they
        settle()
        self.native.close()
        self.engine.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return theirs, ours


class Peer:
    """A client, byte by byte: it never blocks, the loop turns while it waits."""

    timeout: float | None = None  # seconds, if its calls of the service have a deadline

    def __init__(self, sock: socket.socket, connection: Any) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.connection = connection
        self.replies: list[Any] = []
        self.is_at_end = False
        self._unpacker = msgpack.Unpacker(
            strict_map_key=False,
            max_buffer_size=1 << 30,
            unicode_errors="surrogateescape",
            object_pairs_hook=map_of_any_keys,
        )
        self._msgid = 0

    def send(self, data: bytes) -> None:
        """All of ``data``, while the loop turns."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                gevent.sleep(0.001)

    def post(self, method: str, *params: Any) -> int:
        """Send a request without waiting; return its msgid."""
        self._msgid += 1
        if self.timeout is not None and not method.startswith("rpc."):
            method, params = "rpc.call", (method, params, {"timeout": self.timeout})
        self.send(msgpack.packb([0, self._msgid, method, params]))
        return self._msgid

    def notify(self, method: str, *params: Any) -> None:
        self.send(msgpack.packb([2, method, params]))

    def look(self) -> list[Any]:
        """Read what is there; return all replies so far."""
        with contextlib.suppress(BlockingIOError):
            while not self.is_at_end:
                try:
                    data = self.sock.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                self.is_at_end = not data
                self._unpacker.feed(data)
                self.replies += self._unpacker
        return self.replies

    def wait(self, count: int) -> list[Any]:
        """The first ``count`` replies, as [msgid, error, result]."""
        until(lambda: len(self.look()) >= count or self.is_at_end, f"{count} replies, found {len(self.replies)}")
        assert len(self.replies) >= count, f"found the end after {len(self.replies)} replies, expected {count}"
        return [reply[1:] for reply in self.replies[:count]]

    def call(self, method: str, *params: Any) -> Any:
        """The result. Raises RuntimeError with the reply's error."""
        msgid = self.post(method, *params)
        ((error, result),) = until(
            lambda: [reply[2:] for reply in self.look() if reply[1] == msgid], f"the reply to {method}"
        )
        if error is not None:
            raise RuntimeError(error)
        return result

    def wait_end(self) -> None:
        """Until the worker has said that nothing more comes."""
        until(lambda: self.look() is not None and self.is_at_end, "the end of the stream")

    def shut(self) -> None:
        """Send nothing more."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End it with a RST (TCP alone)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


def wait_read(peer: Peer, seconds: float = 20.0) -> None:
    """Until the worker has read all that was sent."""

    def unread() -> int:
        return struct.unpack("i", fcntl.ioctl(peer.sock, termios.TIOCOUTQ, b"\0" * 4))[0]

    until(lambda: not unread(), "the worker reads", seconds)
