"""The address of msgpack-rpc-python: a host and a port."""

from __future__ import annotations

import socket

__all__ = ["Address"]


class Address:
    """A host and a port. ``family`` is kept, but the client tries every family to which the name resolves."""

    def __init__(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> None:
        self._host = host
        self._port = port
        self._family = family

    @property
    def host(self) -> str:
        """A name, or an IPv4 or IPv6 address."""
        return self._host

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    def unpack(self) -> tuple[str, int]:
        """Return host and port."""
        return self._host, self._port
