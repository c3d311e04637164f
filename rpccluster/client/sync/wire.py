"""One connected socket of the client: opens it, and waits for it until a deadline.

Decides nothing and locks nothing: its connection lets one thread read, and writers take turns. In a process that gevent
has patched the sockets are gevent's, and other greenlets run during a wait.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rpccluster.address import Address, UnixAddress
from rpccluster.client.core.exchange.dialect import Dialect
from rpccluster.client.sync.dialing import dial
from rpccluster.client.threads.sockets import NOW
from rpccluster.errors import ConnectFailed
from rpccluster.protocol.challenge import Key, proving

__all__ = ["CHUNK", "TICK_SECONDS", "PatchedWire", "UnixWire", "Wire", "open_wire", "receiver_of"]

#: How many bytes are received at once.
CHUNK = 65536
#: How long `Wire.recv` waits. A timer that ends so late costs a call next to nothing; one of 5 ms costs it 2 µs.
TICK_SECONDS = 0.1
_TICK = struct.pack("ll", 0, int(TICK_SECONDS * 1e6))  # a struct timeval
_TICK_MILLISECONDS = int(TICK_SECONDS * 1000)
_LONGEST_POLL_SECONDS = 3600.0


def open_wire(address: Address, deadline_at: float, key: Key | None = None) -> Wire:
    """Connect to ``address`` by ``deadline_at`` on the monotonic clock, the look-up of a name included.

    With a ``key`` both sides prove that they know it. Raises `ConnectFailed`, and `AuthenticationFailed` among it.
    """
    try:
        sock = _connect(address, deadline_at)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
        raise ConnectFailed(f"{address}: {error or type(error).__name__}") from None
    wire = _kind_of_wire(address)(sock)
    if key is not None:
        try:
            _prove(wire, key, deadline_at)
        except ConnectFailed as error:
            wire.close()
            raise type(error)(f"{address}: {error}") from None
        except BaseException:
            wire.close()
            raise
    return wire


def receiver_of(wire: Wire, dialect: Dialect, max_message_size: int) -> Callable[[int], list[Any] | bytes | None]:
    """Return a function that waits for a tick, and receives what comes, which begins a message.

    It gets a msgid, and returns the whole reply to that request if this is what has come, and else the bytes; None if
    there are none, or the connection has failed, which the next look tells, too.
    """
    if dialect.wire is not None and wire.descriptor is not None:
        receive, descriptor, wait = dialect.wire.receive_reply, wire.descriptor, wire.poll_milliseconds
        return partial(receive, descriptor, wait, max_message_size)
    return wire.receive_soon


def _kind_of_wire(address: Address) -> type[Wire]:
    if socket.socket.__module__ != "socket":
        return PatchedWire
    return UnixWire if isinstance(address, UnixAddress) else Wire


def _prove(wire: Wire, key: Key, deadline_at: float) -> None:
    """Prove ``key`` to the server, and have it do the same. Raises `ConnectFailed`."""
    exchange = proving(key)
    output = next(exchange)
    while True:
        try:
            if output:
                wire.send(output, NOW)
            data = wire.receive(deadline_at)
        except OSError as error:
            raise ConnectFailed(f"the connection ended in the middle of the challenge: {error}") from None
        if data is None:
            raise ConnectFailed("the server did not answer the challenge in time")
        try:
            output = exchange.send(data)
        except StopIteration:
            return


def _connect(address: Address, deadline_at: float) -> socket.socket:
    if not isinstance(address, UnixAddress):
        return dial(address.host, address.port, deadline_at)
    left = max(0.001, deadline_at - time.monotonic())
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(None if left == math.inf else left)
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock


class Wire:
    """A plain socket, in blocking mode.

    A reply that comes soon costs one recv(2): SO_RCVTIMEO ends it after a tick, and only then poll(2) waits until the
    real deadline. (SO_RCVTIMEO alone would not do: each signal that Python handles would start it again.) So only a
    caller with that much time may use `recv`.
    """

    #: Whether a wait is interrupted before it has received anything: not so by a signal handler's exception.
    is_cooperative = False
    #: How long `rpccluster.protocol.compiled` polls in place of `recv`, in milliseconds: -1 means that it need not.
    poll_milliseconds = -1

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
        self._socket = sock
        #: The descriptor, for `rpccluster.protocol.compiled`; None where each wait is gevent's.
        self.descriptor: int | None = sock.fileno()
        #: As of the socket itself, to save a call's worth of time: BlockingIOError after a tick of silence.
        self.recv: Callable[[int], bytes] = sock.recv
        #: The send of the socket itself, for the same reason; its second argument is `NOW`.
        self.send: Callable[[bytes | bytearray, int], int] = sock.send

    def receive_soon(self, msgid: int = 0) -> bytes | None:
        """Return what comes within a tick. See `receiver_of`."""
        try:
            return self.recv(CHUNK)
        except OSError:
            return None

    def receive(self, deadline_at: float) -> bytes | None:
        """Return what has come, b"" at the end of the stream, None if nothing came in time. Raises OSError."""
        while self.wait(select.POLLIN, deadline_at):
            data = self.receive_now()
            if data is not None:
                return data
        return None

    def receive_now(self) -> bytes | None:
        """Return what has come, as `receive` does, without waiting."""
        try:
            return self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def wait(self, events: int, deadline_at: float, bell: socket.socket | None = None) -> bool:
        """Wait for one of poll(2)'s ``events``, or for input on ``bell``. Returns False at the deadline."""
        poll = select.poll()
        poll.register(self._socket, events)
        if bell is not None:
            poll.register(bell, select.POLLIN)
        while True:
            left = min(deadline_at - time.monotonic(), _LONGEST_POLL_SECONDS)
            if left <= 0:
                return bool(poll.poll(0))
            if poll.poll(math.ceil(left * 1000)):
                return True

    def shutdown(self) -> None:
        """End the stream both ways, so that a waiting thread finds its end. Not for a copy after a fork."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the descriptor, on which no thread may be waiting."""
        with contextlib.suppress(OSError):
            self._socket.close()


class UnixWire(Wire):
    """A plain Unix socket, on which a reply is awaited by poll(2).

    Linux wakes a thread that sleeps in recv(2) of a Unix socket already when the peer reads what the thread has sent,
    since there is room to send again. It sleeps on, but each call would cost one switch of the CPU more.
    """

    poll_milliseconds = _TICK_MILLISECONDS

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._poll = poll.poll
        self._recv = sock.recv
        self.recv = self._receive_within_a_tick

    def _receive_within_a_tick(self, size: int) -> bytes:
        if self._poll(_TICK_MILLISECONDS):
            return self._recv(size)
        raise BlockingIOError


class PatchedWire(Wire):
    """A socket of gevent's: non-blocking beneath, with a timeout that costs nothing to set."""

    is_cooperative = True

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.descriptor = None
        self.recv = self._receive_within_a_tick
        self.send = self._send_now

    def _receive_within_a_tick(self, size: int) -> bytes:
        data = self._receive_within(TICK_SECONDS)
        if data is None:
            raise BlockingIOError
        return data

    def _send_now(self, data: bytes | bytearray, flags: int) -> int:
        self._socket.settimeout(0.0)
        return self._socket.send(data, flags)

    def receive(self, deadline_at: float) -> bytes | None:
        left = deadline_at - time.monotonic()
        return self._receive_within(None if left == math.inf else max(0.0, left))

    def receive_now(self) -> bytes | None:
        return self._receive_within(0.0)

    def _receive_within(self, seconds: float | None) -> bytes | None:
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(CHUNK)
        except BlockingIOError:
            return None
        except socket.timeout as error:  # since Python 3.10 the class of ETIMEDOUT too, which ends the connection
            if error.errno is not None:
                raise
            return None
