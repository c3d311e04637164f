"""What a peer has to go through before its first call: a proxy's header, the challenge. Runs in the worker.

Until then the connection has this in place of an inbox and an outbox: the engine sees no byte of it, and nothing is
decoded but the messages of the challenge. Peers over TCP must pass it where there are keys. Those of a Unix socket may
begin with it; whatever else they send first is a call. A proxy's own connection, a health check, may call ``rpc.ping``
without it.

A connection can move as long as nothing was proved to its peer: what it has sent goes along, and the next worker begins
anew. In the middle of a challenge it stays, which takes ``auth_timeout`` at most.
"""

from __future__ import annotations

import _socket
from functools import lru_cache
from typing import Any, Callable, Protocol

import gevent

from rpccluster.errors import ProtocolError
from rpccluster.identity import Identity, identity_of
from rpccluster.protocol.challenge import MOST_BYTES, Challenge, answered_pings, is_other_call, keys_of
from rpccluster.protocol.proxy_header import read_header
from rpccluster.system import MSG_NOSIGNAL, READABLE
from rpccluster.worker.connections.given import peer_of
from rpccluster.worker.hot import Happened

__all__ = ["Entering", "Handshake"]

_keys_of = lru_cache(maxsize=4)(keys_of)


class Entering(Protocol):
    """The connection whose peer goes through a handshake."""

    def handle(self, happened: Happened) -> None:
        """Handle the end of the peer, or of the socket."""

    def admit(self, identity: Identity, data: bytes) -> None:
        """Serve the peer from now on; ``data`` is what it has sent behind the handshake."""

    def turn_away(self, why: str) -> None:
        """End the connection of a peer that has failed; what it has to know was sent."""


class Handshake:
    """The input and the output of a connection whose peer is not served yet."""

    closing_msgid = None
    partial = unsent = None
    pending = 0
    has_replies = reports = False
    has_room_again = True

    def __init__(
        self,
        sock: _socket.socket,
        peer: str,
        identity: Identity,
        *,
        keys: str = "",
        must_pass: bool = False,
        is_proxied: bool = False,
        seconds: float = 0.0,
    ) -> None:
        """``keys`` are those of the options. A peer that ``must_pass`` the challenge has ``seconds``; 0 is no limit.

        One that ``is_proxied`` first tells who is behind it, within that time.
        """
        self._socket = sock
        self.peer = peer
        self.identity = identity
        self._must_pass = must_pass
        self._wants_header = is_proxied
        self._is_local = False  # a connection of the proxy's own, such as a health check
        self._seconds = seconds
        self._challenge = Challenge(_keys_of(keys)) if keys else None
        self._received = b""  # as long as nothing was sent
        self._pings = b""  # an incomplete call of a health check
        self._has_begun = False
        self.is_closed = False
        self.was_heard = False
        self._connection: Any = None
        loop = gevent.get_hub().loop
        self._watcher = loop.io(sock.fileno(), READABLE)
        self._timer = loop.timer(seconds, priority=-1)  # behind the input that came with it

    def start(self, connection: Entering, received: bytes = b"") -> None:
        """Begin; ``received`` is what the peer has sent to another worker."""
        self._connection = connection
        self._watcher.start(self._receive)
        if (self._must_pass or self._wants_header) and self._seconds:
            self._timer.start(self._expire)
        if received:
            self._take(received)

    @property
    def may_move(self) -> bool:
        """Whether another worker can begin it anew."""
        return not self._has_begun and not self._wants_header

    def _receive(self) -> None:
        try:
            data = self._socket.recv(MOST_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._connection.handle(Happened.BROKEN)
            return
        self.was_heard = True
        if data:
            self._take(data)
        else:
            self._connection.handle(Happened.PEER_ENDED)

    def _take(self, data: bytes) -> None:
        if not self._has_begun:
            self._received += data
        if self._wants_header:
            self._take_header()
        elif self._challenge is None:
            self._admit(self.identity, self._received)
        elif self._is_local:
            self._take_pings(self._challenge, data)
        elif self._must_pass:
            self._take_step(self._challenge, data)
        else:
            self._look_at_first_call(self._challenge)

    def _look_at_first_call(self, challenge: Challenge) -> None:
        """See whether a peer that need not pass the challenge begins with it."""
        is_other = is_other_call(self._received)
        if is_other:
            self._admit(self.identity, self._received)
        elif is_other is False:
            self._must_pass = True
            self._take_step(challenge, self._received)

    def _take_header(self) -> None:
        """Learn who is behind the proxy, and go on with what has come behind the header."""
        try:
            header = read_header(self._received)
        except ProtocolError as error:
            self._watcher.stop()
            self._connection.turn_away(str(error))
            return
        if header is None:
            return
        self._wants_header, self._is_local = False, header.is_local
        if header.peer is not None:
            self.peer = peer_of(header.peer)
        if header.cert:
            self.identity = identity_of(f"cert:{header.cert}")
        rest, self._received = self._received[header.size :], b""
        if rest or self._challenge is None:
            self._take(rest)

    def _take_pings(self, challenge: Challenge, data: bytes) -> None:
        """Answer the health check of a proxy; whatever else it sends must be the challenge."""
        answers, self._pings = answered_pings(self._pings + data)
        if answers and not self._send(answers):
            self._connection.handle(Happened.BROKEN)
        elif self._pings and is_other_call(self._pings) is not None:
            self._is_local = False
            self._take_step(challenge, self._pings)

    def _take_step(self, challenge: Challenge, data: bytes) -> None:
        step = challenge.take(data)
        if step.output and not self._send(step.output):
            self._connection.handle(Happened.BROKEN)
        elif step.has_failed:
            self._watcher.stop()
            self._connection.turn_away("it has not passed the challenge")
        elif step.is_passed:
            name = f"key:{challenge.name}"
            self._admit(identity_of(name, *self.identity.names), step.rest)

    def _send(self, output: bytes) -> bool:
        """Send an answer, for which there is room. Returns False if the socket is broken, or there is none."""
        if not self._has_begun:
            self._has_begun, self._received = True, b""
            if self._seconds:
                self._timer.start(self._expire)
        try:
            return self._socket.send(output, MSG_NOSIGNAL) == len(output)
        except OSError:
            return False

    def _expire(self) -> None:
        if self._is_local:
            self._connection.handle(Happened.BROKEN)
            return
        self._connection.turn_away("auth_timeout passed")

    def _admit(self, identity: Identity, data: bytes) -> None:
        connection = self._connection
        self.close()
        connection.admit(identity, data)

    # -- as an inbox and an outbox

    def allow(self, allowed: object) -> None:
        """Do nothing: the engine asks again when the peer is served."""

    def discard(self) -> None:
        """Wait for the peer's end, and drop all other input."""
        self._timer.stop()
        self._watcher.stop()
        self._watcher.start(self._discard)

    def _discard(self) -> None:
        try:
            is_over = not self._socket.recv(MOST_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._connection.handle(Happened.BROKEN)
            return
        if is_over:
            self._connection.handle(Happened.PEER_ENDED)

    def leave(self) -> bool:
        """Return that no call of it runs."""
        return False

    def flush(self) -> None:
        """Do nothing: answers were sent at once."""

    def content(self, waiting: list[Any]) -> bytes:
        """Return all input, which has led to no answer."""
        return self._received

    def unsent_content(self) -> bytes:
        """Return nothing: all output was sent."""
        return b""

    def forward_to(self, forward: Callable[[list[bytes]], None]) -> None:
        """Do nothing: no call runs."""

    def close(self) -> None:
        """Stop for good."""
        self.is_closed = True
        self._connection = None
        for watcher in (self._watcher, self._timer):
            watcher.stop()
            watcher.close()
