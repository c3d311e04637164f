"""All connections of a worker: adds them, and ends those that are late, idle or no longer served.

Runs in the worker, on the loop's timers; `rpccluster.worker.connections.connection` is a single one. Three deadlines
are checked twice a second: ``message_timeout`` of an incomplete message, ``write_timeout`` since the peer last read
something, and ``idle_timeout``. Time in which the worker did not listen does not count.
"""

from __future__ import annotations

import _socket
import ipaddress
from functools import lru_cache
from typing import Any

from rpccluster.config.values import LOOPBACK
from rpccluster.identity import NOBODY, Identity, identity_of
from rpccluster.ipc.scoreboard import Cell
from rpccluster.system import peer_process
from rpccluster.worker.connections.connection import Connection
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.connections.given import Given, address_of, peer_of
from rpccluster.worker.connections.handshake import Handshake
from rpccluster.worker.hot import Engine
from rpccluster.worker.live_options import LiveOptions

__all__ = ["Connections"]

HELD_UP_SECONDS = 2.0  # without a sweep, of which there are two a second: something held the worker up


class Connections:
    """The open connections, and the actions on many of them at once."""

    def __init__(self, context: ConnectionContext, engine: Engine) -> None:
        self.context = context
        self.open: set[Connection] = context.open
        self._engine = engine
        self._is_ending = False  # nothing more is read; a connection that is adopted now ends, too
        self._swept_at: float | None = None
        context.options.follow(self._follow_options)

    def add(self, sock: _socket.socket, address: Any, is_proxied: bool = False) -> Connection:
        """Serve an accepted, non-blocking socket of the peer at ``address``, which may be a proxy."""
        is_tcp = isinstance(address, (tuple, list)) and len(address) >= 2
        identity = NOBODY if is_tcp else _user_of(sock)
        handshake = self._handshake(sock, peer_of(address), identity, must_pass=is_tcp, is_proxied=is_proxied)
        connection = self._add(sock, peer_of(address), identity, handshake, self.context.number_for(sock), is_new=True)
        if is_proxied and not is_within(address[0], self.context.options.proxy_from):
            connection.turn_away("proxy_from does not name it")
        elif handshake is not None:
            handshake.start(connection)
        else:
            self.context.on_served(connection)
        return connection

    def _handshake(
        self, sock: _socket.socket, peer: str, identity: Identity, *, must_pass: bool, is_proxied: bool = False
    ) -> Handshake | None:
        """Return what a new peer goes through before it is served; None if it is nothing."""
        options = self.context.options
        if not options.authkeys and not is_proxied:
            return None
        must_pass = must_pass and bool(options.authkeys)
        return Handshake(
            sock,
            peer,
            identity,
            keys=options.authkeys,
            must_pass=must_pass,
            is_proxied=is_proxied,
            seconds=options.auth_timeout,
        )

    def _add(
        self,
        sock: _socket.socket,
        peer: str,
        identity: Identity = NOBODY,
        handshake: Handshake | None = None,
        number: int = 0,
        *,
        is_new: bool = False,
    ) -> Connection:
        connection = Connection(self.context, self._engine, sock, peer, identity, handshake, number, is_new=is_new)
        self.context.add(connection)
        return connection

    def adopt(self, sock: _socket.socket, number: int, given: Given, awaited: list[list[int]]) -> Connection:
        """Serve a connection that another worker has given; see `Connection.take_over`."""
        handshake = None
        if given.is_entering:
            must_pass = bool(address_of(given.peer))
            handshake = self._handshake(sock, given.peer, given.identity, must_pass=must_pass)
        connection = self._add(sock, given.peer, given.identity, handshake, number)
        self.context.adopted[number] = connection
        if self.context.follower is not None:
            self.context.follower.note_adopted(connection.outbox, connection.fileno())
        connection.take_over(given, awaited)
        if self._is_ending:
            connection.stop_reading()
        return connection

    def sweep(self) -> None:
        """Close the connections that have passed a deadline. Called twice a second.

        Time in which a peer was not listened to does not count: while a method delayed the worker, or the connection is
        paused. What came meanwhile waits in the kernel.
        """
        context, options, now = self.context, self.context.options, self.context.clock()
        if self._swept_at is not None and now - self._swept_at > HELD_UP_SECONDS:
            self._excuse(now - self._swept_at)
        self._swept_at = now
        for connection in context.partial:
            if connection.is_paused:
                context.partial[connection] = now
        for since, seconds, limit in (
            (context.partial, options.message_timeout, Cell.MESSAGE_TIMEOUT),
            (context.unsent, options.write_timeout, Cell.WRITE_TIMEOUT),
        ):
            for connection in _of_before(since, now - seconds) if seconds else ():
                connection.close(f"{limit.name.lower()} passed", limit)
        for connection in _of_before(context.lingering, now):
            connection.close()
        for connection in _of_before(context.blamed, now):
            connection.forgive()
        if options.idle_timeout:
            for connection in [c for c in self.open if c.is_quiet_for(options.idle_timeout, now)]:
                connection.close_idle()

    def _excuse(self, seconds: float) -> None:
        """Put every deadline off by ``seconds``, in which this worker neither read nor sent."""
        for times in self.context.times:
            for connection in times:
                times[connection] += seconds
        for connection in self.open:
            connection.excuse(seconds)

    def stop_reading(self) -> None:
        """Read no more; each connection ends when its running calls are answered."""
        self._is_ending = True
        unanswered = self._engine.unanswered()
        for connection in list(self.open):
            connection.stop_reading(unanswered.get(connection.outbox, ()))

    def _follow_options(self, options: LiveOptions, changed: frozenset[str]) -> None:
        if "access" in changed:
            self._engine.allow_anew([connection.outbox for connection in self.open])
        for connection in list(self.open):
            connection.look_at_pending()
            if "tcp_keepalive" in changed:
                connection.keep_alive(options.tcp_keepalive)

    def leave_to_parent(self) -> None:
        """Close every socket, in a forked child."""
        for connection in self.open:
            connection.leave_to_parent()


@lru_cache(maxsize=256)
def is_within(host: str, networks: str) -> bool:
    """Return whether ``host`` is in one of ``networks``: the value of ``proxy_from``."""
    found = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(found, "ipv4_mapped", None) or found
    each = networks.split(", ")
    return (LOOPBACK in each and address.is_loopback) or any(
        address in ipaddress.ip_network(network) for network in each if network != LOOPBACK
    )


def _user_of(sock: _socket.socket) -> Identity:
    """Return the identity of the user at the other end of a Unix socket."""
    try:
        return identity_of(f"uid:{peer_process(sock)[1]}")
    except OSError:  # it has gone
        return NOBODY


def _of_before(times: dict[Connection, float], then: float) -> list[Connection]:
    return [connection for connection, time in times.items() if time < then]
