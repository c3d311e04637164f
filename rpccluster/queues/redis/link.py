"""The two connections of a keeper to Redis: one runs batches, by the other one other keepers wake it. In the keeper.

Each command is sent once. redis-py's own client repeats a command that was not answered (three times since version 6),
and its sockets are gevent's in a keeper; so this uses its connections alone, on sockets from before gevent's patch,
which a native thread may wait for.
"""

from __future__ import annotations

import _socket
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis.connection import Connection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from rpccluster.queues.redis.address import RedisAddress

__all__ = ["SCRIPT", "Away", "Link"]

_HERE = Path(__file__).parent
SCRIPT = b"".join((_HERE / name).read_bytes() for name in ("items.lua", "leases.lua", "verbs.lua", "batch.lua"))
_CHANNEL = "rpccluster:wake:"


class Away(Exception):
    """Redis cannot be reached, does not answer, or refuses. What was sent may have run, unless it was refused."""


class _Connection(Connection):
    """A connection whose socket is the system's own."""

    plain: Any = None

    def _connect(self) -> Any:
        reason: OSError = OSError("the name has no address")
        for family, kind, protocol, _, where in _socket.getaddrinfo(self.host, self.port, 0, _socket.SOCK_STREAM):
            self.plain = plain = _socket.socket(family, kind, protocol)
            try:
                plain.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                plain.settimeout(self.socket_connect_timeout)
                plain.connect(where)
                plain.settimeout(self.socket_timeout)
                return plain
            except OSError as error:
                plain.close()
                reason = error
        raise reason


class Link:
    """Both connections, made and given up together. Every wait has an end, which is ``until`` by `time.monotonic`."""

    def __init__(self, address: RedisAddress, password: str, keeper: str, script: bytes = SCRIPT) -> None:
        self._address = address
        self._password = password or None
        self._script = script
        self._digest = hashlib.sha1(script).hexdigest()
        self._channel = _CHANNEL + keeper
        self._batches: _Connection | None = None
        self._wakes: _Connection | None = None

    @property
    def is_up(self) -> bool:
        """Whether there are connections."""
        return self._wakes is not None

    def fileno(self) -> int | None:
        """Return the descriptor that is readable when another keeper has something to tell, or has hung up."""
        if self._wakes is None:
            return None
        number: int = self._wakes.plain.fileno()
        return number

    def connect(self, until: float) -> None:
        """Make both connections. Raises `Away`."""
        self.close()
        try:
            self._batches = self._connection(until)
            self._wakes = wakes = self._connection(until)
            wakes.send_command("SUBSCRIBE", self._channel)
            wakes.read_response()
        except (RedisError, OSError) as error:
            raise self._away(error) from None

    def run(self, batch: bytes, until: float) -> bytes:
        """Run the script on ``batch``. Returns its reply; raises `Away`."""
        try:
            reply: bytes = self.ask(until, "EVALSHA", self._digest, 0, batch)
        except NoScriptError:  # it has not run
            self.ask(until, "SCRIPT LOAD", self._script)
            reply = self.ask(until, "EVALSHA", self._digest, 0, batch)
        return reply

    def ask(self, until: float, *command: Any) -> Any:
        """Return what Redis answers to one command. Raises `Away`, or what redis-py raises for a missing script."""
        connection = self._batches
        assert connection is not None
        try:
            connection.plain.settimeout(_left(until))
            connection.send_command(*command)
            return connection.read_response()
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            raise self._away(error) from None

    def wakes(self) -> Iterator[tuple[str, str]]:
        """Give what other keepers have told: ``r`` (has ready items) or ``f`` (has room), and the name of the queue.

        Raises `Away` when the connection has ended.
        """
        connection = self._wakes
        try:
            while connection is not None and connection.can_read(timeout=0):
                kind, _, told = connection.read_response()
                if kind == b"message":
                    text = told.decode(errors="surrogatepass")
                    yield text[0], text[1:]
        except (RedisError, OSError) as error:
            raise self._away(error) from None

    def close(self) -> None:
        """Give both connections up."""
        for connection in (self._batches, self._wakes):
            if connection is not None:
                connection.disconnect()
        self._batches = self._wakes = None

    def _connection(self, until: float) -> _Connection:
        left = _left(until)
        connection = _Connection(
            host=self._address.host,
            port=self._address.port,
            db=self._address.db,
            password=self._password,
            protocol=2,
            socket_connect_timeout=left,
            socket_timeout=left,
        )
        connection.connect()
        return connection

    def _away(self, error: Exception) -> Away:
        """Give the connections up, after anything that is not an answer, and say why."""
        refused = isinstance(error, ResponseError) and not str(error).startswith("READONLY")
        if not refused:  # a replica was the master once; by its name another one may be found
            self.close()
        return Away(f"{self._address}: {error}")


def _left(until: float) -> float:
    return max(0.001, until - time.monotonic())
