"""What a peer has to go through before its first call: the challenge. Runs in the worker, on the loop's callbacks.

Until then the connection has this in place of an inbox and an outbox: the engine sees no byte of it, and nothing is
decoded but the messages of the challenge. Peers over TCP must pass it where there are keys. Those of a Unix socket may
begin with it; whatever else they send first is a call.

A connection can move as long as nothing was proved to its peer: what it has sent goes along, and the next worker begins
anew. In the middle of a challenge it stays, which takes ``auth_timeout`` at most.
"""

from __future__ import annotations

import _socket
from functools import lru_cache
from typing import Any, Callable, Protocol

import gevent

from rpccluster.identity import Identity, identity_of
from rpccluster.protocol.challenge import MOST_BYTES, Challenge, is_other_call, keys_of
from rpccluster.system import MSG_NOSIGNAL, READABLE
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
        keys: str,
        must_pass: bool,
        seconds: float,
    ) -> None:
        """``keys`` are those of the options. A peer that ``must_pass`` has ``seconds`` for it; 0 is no limit."""
        self._socket = sock
        self.peer = peer
        self.identity = identity
        self._must_pass = must_pass
        self._seconds = seconds
        self._challenge = Challenge(_keys_of(keys))
        self._received = b""  # as long as nothing was sent
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
        if self._must_pass and self._seconds:
            self._timer.start(self._expire)
        if received:
            self._take(received)

    @property
    def may_move(self) -> bool:
        """Whether another worker can begin it anew."""
        return not self._has_begun

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
            if not self._must_pass:
                is_other = is_other_call(self._received)
                if is_other is None:
                    return  # too little has come to tell
                if is_other:
                    self._admit(self.identity, self._received)
                    return
                data = self._received  # of which the challenge has had nothing
        step = self._challenge.take(data)
        if step.output and not self._send(step.output):
            self._connection.handle(Happened.BROKEN)
        elif step.has_failed:
            self._watcher.stop()
            self._connection.turn_away("it has not passed the challenge")
        elif step.is_passed:
            name = f"key:{self._challenge.name}"
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
