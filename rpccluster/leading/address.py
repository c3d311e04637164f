"""Parses the addresses of stores, such as ``zookeeper://HOST:PORT,HOST:PORT/PATH`` and ``file:PATH``. Any process."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rpccluster.errors import AddressError

__all__ = ["StoreAddress"]

_EXPECTED = "expected zookeeper://HOST:PORT,…/PATH or file:PATH"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:/\s@,]+)(?::(?P<port>[0-9]{1,5}))?")
_ZOOKEEPER_PORT = 2181


@dataclass(frozen=True)
class StoreAddress:
    """The address of a store: ``hosts`` as HOST:PORT and the path of a node, or the ``path`` of a file."""

    path: str
    hosts: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether the store is a file of this machine."""
        return not self.hosts

    def __str__(self) -> str:
        return f"file:{self.path}" if self.is_file else f"zookeeper://{','.join(self.hosts)}{self.path}"

    @classmethod
    def parse(cls, text: str) -> StoreAddress:
        """Parse an address. Raises `AddressError`, which says what was found and what was expected."""
        text = text.strip()
        scheme, _, rest = text.partition(":")
        if scheme == "file" and rest and "\0" not in rest and not rest.endswith("/"):
            return cls(rest)
        if scheme != "zookeeper" or not rest.startswith("//"):
            raise AddressError(f"found {text!r}, {_EXPECTED}")
        hosts, slash, path = rest[2:].partition("/")
        if not path or any(name in ("", ".", "..") for name in path.split("/")):
            raise AddressError(f"found {text!r}, {_EXPECTED}: a path of names behind the hosts")
        return cls(slash + path, tuple(_host(host, text) for host in hosts.split(",")))


def _host(host: str, text: str) -> str:
    match = _HOST.fullmatch(host.strip())
    if match is None or int(match["port"] or _ZOOKEEPER_PORT) not in range(1, 65536):
        raise AddressError(f"found the host {host!r} in {text!r}, expected HOST:PORT")
    return f"{match[1]}:{match['port'] or _ZOOKEEPER_PORT}"
