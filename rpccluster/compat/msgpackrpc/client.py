"""The client of msgpack-rpc-python, over this project's client. It serves existing code, and decides nothing itself."""

from __future__ import annotations

from time import monotonic
from typing import Any

from rpccluster.address import TCPAddress
from rpccluster.client.sync.client import Client as Beneath
from rpccluster.client.sync.connection import Connection
from rpccluster.compat.msgpackrpc.address import Address
from rpccluster.compat.msgpackrpc.dialect import old_dialect, old_error
from rpccluster.compat.msgpackrpc.future import Future
from rpccluster.errors import ConnectFailed, RPCClusterError

__all__ = ["Client", "Context"]


class Client:
    """The old library's client. ``timeout`` is in seconds, None or 0: no limit; ``loop`` and ``builder`` are ignored.

    Without ``unpack_encoding`` strings come as bytes. After ``reconnect_limit`` attempts to connect, a call raises
    `TransportError`.
    """

    def __init__(
        self,
        address: Address,
        timeout: float | None = 10,
        loop: Any = None,
        builder: Any = None,
        reconnect_limit: int = 5,
        pack_encoding: str | None = "utf-8",
        unpack_encoding: str | None = None,
    ) -> None:
        self._address = address
        self._client = _Beneath(TCPAddress(*address.unpack()), timeout=timeout or None)
        self._client.reconnect_limit = reconnect_limit
        self._client._dialect = old_dialect(pack_encoding, unpack_encoding)

    @classmethod
    def open(cls, *args: Any, **options: Any) -> Context:
        """Return a client for a ``with`` statement, which closes it."""
        return Context(cls(*args, **options))

    @property
    def address(self) -> Address:
        """The server's address."""
        return self._address

    def call(self, method: str | bytes, *args: Any) -> Any:
        """Make a call and return its result. Raises `RPCError`, `TimeoutError` or `TransportError`."""
        try:
            return self._client.call(_name(method), *args)
        except RPCClusterError as error:
            raise old_error(error) from None

    def call_async(self, method: str | bytes, *args: Any) -> Future:
        """Return the future of a call."""
        return Future(self._client.call_async(_name(method), *args))

    def notify(self, method: str | bytes, *args: Any) -> None:
        """Send a notification. Raises `TransportError` if it cannot be sent."""
        try:
            self._client.notify(_name(method), *args)
        except RPCClusterError as error:
            raise old_error(error) from None

    def close(self) -> None:
        """Close the connection; pending futures end with `TransportError`."""
        self._client.close()


class Context:
    """The context manager of `Client.open`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> Client:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()


class _Beneath(Beneath):
    """Tries to connect again, at once, up to ``reconnect_limit`` times in all."""

    reconnect_limit = 1

    def _connected(self, deadline_at: float) -> Connection:
        for _ in range(self.reconnect_limit - 1):
            try:
                return super()._connected(deadline_at)
            except ConnectFailed:
                if monotonic() >= deadline_at:
                    raise
        return super()._connected(deadline_at)


def _name(method: str | bytes) -> str:
    return method if isinstance(method, str) else method.decode("utf-8", "surrogateescape")
